import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { PortRow } from "./port-table.ts";

/** The longest id that stands in a label as it is: with a port and a token of 16 the label has 63 characters, the most in DNS. */
const slugLimit = 40;

/**
 * A sandbox's part of its previews' labels: the id when it is lower-case and short enough, else its beginning and 8
 * characters of a hash, because host names do not tell "Box" from "box".
 */
export function slugOf(id: string): string {
  if (id.length <= slugLimit && id === id.toLowerCase()) return id;
  const hash = createHash("sha256").update(id).digest("hex").slice(0, 8);
  return `${id.toLowerCase().slice(0, 31)}-${hash}`;
}

/** 16 characters of 32: 80 bits, more than anybody tries over a network. */
export function newPortToken(): string {
  return Array.from(randomBytes(16), (byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31]).join("");
}

/** No token is longer (protocol/port.ts). */
const tokenLimit = 16;

/** Compares in a time that does not depend on how much is right. */
export function isToken(row: PortRow, token: string): boolean {
  if (!/^\w+$/.test(token) || token.length > tokenLimit) return false;
  const padded = (text: string) => Buffer.from(text.padEnd(tokenLimit));
  return timingSafeEqual(padded(row.token), padded(token));
}

export function labelOf(row: PortRow): string {
  return row.auth === "public" ? `${row.port}-${row.slug}` : `${row.port}-${row.slug}-${row.token}`;
}
