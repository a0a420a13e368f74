import { chmodSync, mkdirSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

/** Version of the tables; a database of a later one is refused, an earlier one is brought up step by step. */
const stateVersion = 1;

/**
 * Opens `<dataDir>/state.db`. WAL with synchronous NORMAL: a transaction that has returned survives the end of the daemon
 * in any way; after a power failure the last few may be missing, and recovery compares with what is really there.
 * Only one daemon has it open: the lock is held by the caller.
 */
export function openState(dataDir: string): DatabaseSync {
  mkdirSync(dataDir, { recursive: true, mode: 0o711 });
  const path = `${dataDir}/state.db`;
  const db = new DatabaseSync(path, { timeout: 5_000 });
  chmodSync(path, 0o600);
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;");
  migrate(db, path);
  return db;
}

function migrate(db: DatabaseSync, path: string): void {
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
  if (version > stateVersion) {
    throw new Error(
      `Cannot open "${path}": it was written by a later version of Atoll (${version}, this one knows ${stateVersion})`,
    );
  }
  if (version === stateVersion) return;
  db.exec(`BEGIN; ${firstTables} PRAGMA user_version = ${stateVersion}; COMMIT;`);
}

const firstTables = `
  -- A named computer. "key" is its opaque id: it names the disk and the gateway's table of names, and is never used again.
  CREATE TABLE sandboxes (
    name TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    config TEXT NOT NULL,
    image TEXT NOT NULL,
    image_digest TEXT NOT NULL,
    run_number INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    last_active INTEGER NOT NULL,
    last_end TEXT
  ) STRICT;

  -- One life of a sandbox's processes, written before the first resource is taken, removed after the last is given back.
  CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    sandbox_key TEXT NOT NULL UNIQUE,
    number INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('starting', 'running', 'stopping')),
    slot INTEGER,
    boot TEXT NOT NULL,
    pid INTEGER,
    pid_started INTEGER,
    began INTEGER NOT NULL
  ) STRICT;

  -- Keys whose sandbox is destroyed. Kept a while after nothing is left: the host's power may bring a removed disk back.
  CREATE TABLE garbage (key TEXT PRIMARY KEY, discarded INTEGER NOT NULL) STRICT;

  -- Everything that happened to a sandbox. Append-only.
  CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    sandbox_key TEXT NOT NULL,
    run INTEGER NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL
  ) STRICT;
  CREATE INDEX journal_by_sandbox ON journal (sandbox_key, seq);

  -- SHA-256 of each token that opens the API.
  CREATE TABLE tokens (hash BLOB PRIMARY KEY, name TEXT NOT NULL, created INTEGER NOT NULL) STRICT;
`;
