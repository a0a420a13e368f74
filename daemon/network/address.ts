import { createHash } from "node:crypto";

/** The gateway's address in every hub: resolver, next hop, and where TPROXY delivers. */
export const gatewayAddress = "198.18.0.1";

/** Where the hub hands TCP over. Sandboxes cannot address it. */
export const proxyPort = 15001;

/** Slots 0..slotCount-1 have the addresses 198.18.1.0 to 198.18.254.255; 198.18.0.0/24 is the gateway's. */
export const slotCount = 254 * 256;

/** The address of a slot, "198.18.x.y". */
export function slotAddress(slot: number): string {
  return `198.18.${1 + (slot >> 8)}.${slot & 255}`;
}

/** The name of a slot's network namespace. */
export function slotName(tag: string, slot: number): string {
  return `a${tag}-${slot}`;
}

/** The slot that a namespace's name means, or undefined when it is none of this daemon's. */
export function slotOfName(tag: string, name: string): number | undefined {
  const digits = name.startsWith(`a${tag}-`) ? name.slice(tag.length + 2) : "";
  const slot = /^(0|[1-9]\d{0,4})$/.test(digits) ? Number(digits) : slotCount;
  return slot < slotCount ? slot : undefined;
}

/** The end of a slot's veth in the hub. */
export function hubLink(slot: number): string {
  return `hx${slot}`;
}

export function hubName(tag: string): string {
  return `a${tag}-hub`;
}

export function netnsPath(name: string): string {
  return `/run/netns/${name}`;
}

/**
 * The uid and gid of a daemon's gateway: one of its own for every daemon, because processes of one uid may trace each
 * other. The range lies above what distributions and systemd hand out, and below the sandboxes' own uids.
 */
export function gatewayUid(tag: string): number {
  return 1_899_000_000 + (createHash("sha256").update(tag).digest().readUInt32BE() % 900_000);
}
