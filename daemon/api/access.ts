import { createHash, randomBytes } from "node:crypto";
import { timingSafeEqual } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { SandboxError } from "../../protocol/errors.ts";
import { wireHeader, wireVersion } from "../../protocol/version.ts";

/** Who may use the API: tokens, of which only hashes are kept. */
export class Tokens {
  readonly #db: DatabaseSync;
  /** By name; asked with every request, and nobody else writes the table. */
  readonly #hashes: Map<string, Uint8Array>;

  constructor(db: DatabaseSync) {
    this.#db = db;
    const rows = db.prepare("SELECT name, hash FROM tokens").all();
    this.#hashes = new Map(rows.map((row) => [String(row["name"]), row["hash"] as Uint8Array]));
  }

  /** Makes `token` the one of this name; the former one of the name opens nothing any more. */
  set(name: string, token: string): void {
    const hashed = hash(token);
    this.#db.exec("BEGIN IMMEDIATE");
    this.#db.prepare("DELETE FROM tokens WHERE name = ?").run(name);
    this.#db
      .prepare("INSERT OR REPLACE INTO tokens (hash, name, created) VALUES (?, ?, ?)")
      .run(hashed, name, Date.now());
    this.#db.exec("COMMIT");
    this.#hashes.set(name, hashed);
  }

  /** Compares with every token, in a time that does not depend on which, if any, it is. */
  opens(token: string): boolean {
    const given = hash(token);
    let found = false;
    for (const known of this.#hashes.values()) if (timingSafeEqual(given, known)) found = true;
    return found;
  }
}

/** 256 bits: nobody guesses it, so a plain hash is enough at rest. */
export function newToken(): string {
  return `atoll_${randomBytes(32).toString("base64url")}`;
}

function hash(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** Throws UNAUTHORIZED unless the bearer header opens the API. Never a cookie: a page elsewhere could make a browser send it. */
export function requireToken(authorization: string | undefined, tokens: Tokens): void {
  const token = /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
  if (token !== undefined && tokens.opens(token)) return;
  const why = token === undefined ? "the request has no bearer token" : "the token is wrong";
  throw new SandboxError("UNAUTHORIZED", `Cannot use the API: ${why}`, {
    suggestion: "Send the header Authorization: Bearer TOKEN; the daemon's connection file has the token",
  });
}

/** The name in a Host header, in lower case. */
export function hostName(host: string): string {
  return host
    .replace(/:\d+$/, "")
    .replace(/^\[(.*)\]$/, "$1")
    .toLowerCase();
}

/** Throws FORBIDDEN unless the request names this daemon: a page that has its own name point here gets nothing. */
export function requireHost(host: string | undefined, names: ReadonlySet<string>): void {
  const name = hostName(host ?? "");
  if (names.has(name)) return;
  throw new SandboxError(
    "FORBIDDEN",
    `Cannot answer for host ${JSON.stringify(name.slice(0, 255))}: it is not a name of this daemon`,
    {
      suggestion: "Use 127.0.0.1 or localhost, or start the daemon with --names",
    },
  );
}

/** Throws VERSION_MISMATCH for a client that says another version of the wire than ours; one that says none is trusted to know. */
export function requireWire(said: string | undefined): void {
  if (said === undefined || said === String(wireVersion)) return;
  throw new SandboxError(
    "VERSION_MISMATCH",
    `Cannot answer: the client speaks version ${JSON.stringify(said.slice(0, 20))} of "${wireHeader}", this daemon ${wireVersion}`,
    {
      suggestion: "Update the older of the two; after an update of Atoll start the daemon again: atoll down, atoll up",
    },
  );
}
