import { chmodSync, mkdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { SandboxError } from "../protocol/errors.ts";

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
  try {
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;");
    migrate(db, path);
    return db;
  } catch (cause) {
    db.close();
    if (!isBroken(cause)) throw cause;
    throw new SandboxError("INTERNAL_ERROR", `Cannot open "${path}": ${cause.message}`, {
      cause,
      suggestion: "Put a copy of it back that is whole; nothing was changed, the disks are all there",
    });
  }
}

/** All of `work` or nothing of it; within another transaction, a part of that one. */
export function transaction<T>(db: DatabaseSync, work: () => T): T {
  if (db.isTransaction) return work();
  db.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    db.exec("COMMIT");
    return result;
  } catch (error) {
    // where it has no room SQLite has rolled back already
    if (db.isTransaction) db.exec("ROLLBACK");
    throw error;
  }
}

/** Whether the disk did not take a change: SQLITE_FULL, or SQLITE_IOERR of any kind. Nothing is damaged, and it may take it later. */
export function isNotTaken(error: unknown): error is Error & { errcode: number } {
  return error instanceof Error && "errcode" in error && [10, 13].includes(Number(error.errcode) & 255);
}

/**
 * Resolves when every transaction that had returned survives the host's power too. A checkpoint that comes in between has
 * synchronised what it took from the log.
 */
export async function syncState(db: DatabaseSync): Promise<void> {
  // never the database itself: closing that would give back the locks that SQLite holds on it
  await using log = await open(`${db.location()}-wal`, "r");
  await log.datasync();
}

/** SQLITE_CORRUPT and SQLITE_NOTADB. */
function isBroken(error: unknown): error is Error & { errcode: number } {
  return error instanceof Error && "errcode" in error && (error.errcode === 11 || error.errcode === 26);
}

function migrate(db: DatabaseSync, path: string): void {
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
  const stateVersion = steps.length;
  if (version > stateVersion) {
    throw new Error(
      `Cannot open "${path}": it was written by a later version of Atoll (${version}, this one knows ${stateVersion})`,
    );
  }
  for (const [index, step] of steps.entries()) {
    if (index >= version) db.exec(`BEGIN; ${step} PRAGMA user_version = ${index + 1}; COMMIT;`);
  }
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

const serviceTable = `
  -- Processes that are started again at every wake. "request" is what was asked for, "run" the last run that started it.
  CREATE TABLE services (
    sandbox_key TEXT NOT NULL REFERENCES sandboxes (key) ON DELETE CASCADE,
    id TEXT NOT NULL,
    restart TEXT NOT NULL CHECK (restart IN ('wake', 'on-failure')),
    request TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (sandbox_key, id)
  ) STRICT;
`;

const portTable = `
  -- Ports that have a URL. The token is in the URL: whoever reads this file may see the previews.
  CREATE TABLE ports (
    sandbox_key TEXT NOT NULL REFERENCES sandboxes (key) ON DELETE CASCADE,
    port INTEGER NOT NULL,
    slug TEXT NOT NULL,
    token TEXT NOT NULL,
    auth TEXT NOT NULL CHECK (auth IN ('token', 'bearer', 'public')),
    name TEXT,
    domain TEXT,
    PRIMARY KEY (sandbox_key, port)
  ) STRICT;
`;

const warmRuns = `
  -- A run that is ready and belongs to no sandbox yet: what it is made of, as JSON. NULL: its sandbox has the row's key.
  ALTER TABLE runs ADD COLUMN warm TEXT;
  -- How old the run's process was when a sandbox claimed it, milliseconds: its lifetime begins then.
  ALTER TABLE runs ADD COLUMN waited_ms INTEGER NOT NULL DEFAULT 0;
`;

const lives = `
  -- What followers of sandboxes are told, found without passing over the commands between.
  CREATE INDEX journal_of_lives ON journal (seq) WHERE type IN ('run.start', 'run.end', 'run.idle', 'start.failed');
  -- Why a run that is "stopping" ends, as JSON: the daemon that gives it back may be another.
  ALTER TABLE runs ADD COLUMN ending TEXT;
`;

/** Each brings the tables from the version that is its place to the next. What one has made is never changed in it again. */
const steps = [firstTables, serviceTable, portTable, warmRuns, lives];
