import { randomBytes } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import type { EndReason } from "../../protocol/sandbox.ts";
import type { ProcessId } from "../linux/process.ts";
import { syncState, transaction } from "../state.ts";
import type { StoredConfig } from "./config.ts";

/** A sandbox as its row keeps it; it outlives its runs. */
export type SandboxRecord = {
  name: string;
  /** Opaque, never used again: names the disk and the gateway's table of names. */
  key: string;
  config: StoredConfig;
  image: string;
  imageDigest: string;
  /** Number of the current run, or of the last one. */
  runNumber: number;
  created: number;
  lastActive: number;
  lastEnd?: RunEnd;
};

export type RunEnd = { reason: EndReason; at: number; detail?: string };

/** A run's row: enough to find everything it has taken, and to tell whether it lives. */
export type RunRecord = {
  /** Opaque: every host resource of the run carries it. */
  id: string;
  sandboxKey: string;
  number: number;
  state: "starting" | "running" | "stopping";
  slot?: number;
  bootId: string;
  /** PID 1 of the run, as the host sees it; absent until the runtime has made it. */
  process?: ProcessId;
  began: number;
  /** While it is "stopping": why. */
  ending?: Omit<RunEnd, "at">;
  /** Present while the run waits in the warm pool: no sandbox has `sandboxKey` yet. */
  warm?: WarmMake;
  /** How old its process was when its sandbox claimed it; 0 for one that was started for it. */
  waitedMs: number;
};

/** What a warm run is made of: it is good for sandboxes that would be made of the same. */
export type WarmMake = { imageDigest: string; /** Hash of everything else in its specification. */ hash: string };

/** Twelve hex characters: short enough for host resources, too many to meet twice. */
export function newKey(): string {
  return randomBytes(6).toString("hex");
}

/**
 * The rows of sandboxes and runs. Every change is one transaction, done when the method returns. Reads come from memory:
 * nobody else writes, and a sweep asks for a thousand of them.
 */
export class Records {
  readonly #db: DatabaseSync;
  readonly #byName = new Map<string, SandboxRecord>();
  readonly #byKey = new Map<string, SandboxRecord>();
  /** Images of the runs that no sandbox has, by run. */
  readonly #warmImages = new Map<string, string>();

  constructor(db: DatabaseSync) {
    this.#db = db;
    for (const row of db.prepare("SELECT * FROM sandboxes ORDER BY name").all()) this.#keep(toSandbox(row));
    for (const { id, warm } of this.runs()) if (warm) this.#warmImages.set(id, warm.imageDigest);
  }

  find(name: string): SandboxRecord | undefined {
    return this.#byName.get(name);
  }

  findByKey(key: string): SandboxRecord | undefined {
    return this.#byKey.get(key);
  }

  /** Sorted by name. */
  list(): SandboxRecord[] {
    return [...this.#byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  add(given: Pick<SandboxRecord, "name" | "config" | "image" | "imageDigest">, now: number): SandboxRecord {
    const record: SandboxRecord = { ...given, key: newKey(), runNumber: 0, created: now, lastActive: now };
    this.#db
      .prepare(
        "INSERT INTO sandboxes (name, key, config, image, image_digest, created, last_active) VALUES (?, ?, ?, ?, ?, ?, ?)",
      )
      .run(record.name, record.key, JSON.stringify(record.config), record.image, record.imageDigest, now, now);
    return this.#keep(record);
  }

  setConfig(key: string, config: StoredConfig): void {
    this.#db.prepare("UPDATE sandboxes SET config = ? WHERE key = ?").run(JSON.stringify(config), key);
    this.#change(key, { config });
  }

  setLastActive(key: string, at: number): void {
    this.#db.prepare("UPDATE sandboxes SET last_active = ? WHERE key = ?").run(at, key);
    this.#change(key, { lastActive: at });
  }

  /** The intent of a start: the row is there before the first resource is taken, and the run has its number. */
  beginRun(key: string, bootId: string, now: number): RunRecord {
    const id = newKey();
    const number = (this.#byKey.get(key)?.runNumber ?? 0) + 1;
    const run = transaction(this.#db, (): RunRecord => {
      this.#db.prepare("UPDATE sandboxes SET run_number = ? WHERE key = ?").run(number, key);
      this.#db
        .prepare("INSERT INTO runs (id, sandbox_key, number, state, boot, began) VALUES (?, ?, ?, 'starting', ?, ?)")
        .run(id, key, number, bootId, now);
      return { id, sandboxKey: key, number, state: "starting", bootId, began: now, waitedMs: 0 };
    });
    this.#change(key, { runNumber: number });
    return run;
  }

  /** The intent of a start for nobody: the run has the key that the sandbox which claims it will have. */
  beginWarmRun(warm: WarmMake, bootId: string, now: number): RunRecord {
    const [id, sandboxKey] = [newKey(), newKey()];
    this.#db
      .prepare(
        "INSERT INTO runs (id, sandbox_key, number, state, boot, began, warm) VALUES (?, ?, 1, 'starting', ?, ?, ?)",
      )
      .run(id, sandboxKey, bootId, now, JSON.stringify(warm));
    this.#warmImages.set(id, warm.imageDigest);
    return { id, sandboxKey, number: 1, state: "starting", bootId, began: now, warm, waitedMs: 0 };
  }

  /**
   * The claim: from now on the warm run is the first of this sandbox, which has had none and takes over its key, with
   * what was said about it so far. The run is "starting" again, so one that is cut off before its limits hold is ended.
   */
  claimRun(run: RunRecord, { key }: SandboxRecord, claimed: { now: number; waitedMs: number }): SandboxRecord {
    const { id, sandboxKey } = run;
    const { now, waitedMs } = claimed;
    transaction(this.#db, () => {
      this.#db.prepare("UPDATE sandboxes SET key = ? WHERE key = ?").run(sandboxKey, key);
      this.#db.prepare("UPDATE journal SET sandbox_key = ? WHERE sandbox_key = ?").run(sandboxKey, key);
      this.#db
        .prepare("UPDATE runs SET warm = NULL, state = 'starting', began = ?, waited_ms = ? WHERE id = ?")
        .run(now, waitedMs, id);
    });
    this.#warmImages.delete(id);
    delete run.warm;
    Object.assign(run, { state: "starting", began: now, waitedMs });
    const record = this.#byKey.get(key)!;
    this.#byKey.delete(key);
    return this.#keep({ ...record, key: sandboxKey });
  }

  /** Resolves when all that is recorded now survives the host's power too. */
  sync(): Promise<void> {
    return syncState(this.#db);
  }

  /** A claimed run is what its sandbox's run must be: from now on it is its first. */
  confirmClaim({ id, sandboxKey, number }: RunRecord): void {
    transaction(this.#db, () => {
      this.#db.prepare("UPDATE sandboxes SET run_number = ? WHERE key = ?").run(number, sandboxKey);
      this.#db.prepare("UPDATE runs SET state = 'running' WHERE id = ?").run(id);
    });
    this.#change(sandboxKey, { runNumber: number });
  }

  /** After the last resource of a run that nobody claimed was given back; its disk may come back after a power failure. */
  endWarmRun({ id, sandboxKey }: RunRecord, now: number): void {
    transaction(this.#db, () => {
      this.#db.prepare("DELETE FROM runs WHERE id = ?").run(id);
      this.#db.prepare("INSERT OR IGNORE INTO garbage (key, discarded) VALUES (?, ?)").run(sandboxKey, now);
    });
    this.#warmImages.delete(id);
  }

  setSlot(id: string, slot: number): void {
    this.#db.prepare("UPDATE runs SET slot = ? WHERE id = ?").run(slot, id);
  }

  setProcess(id: string, process: ProcessId): void {
    this.#db.prepare("UPDATE runs SET pid = ?, pid_started = ? WHERE id = ?").run(process.pid, process.startTime, id);
  }

  setRunning(id: string): void {
    this.#db.prepare("UPDATE runs SET state = 'running' WHERE id = ?").run(id);
  }

  /** The intent of an end: whoever gives the run back knows why it ended. */
  setStopping(id: string, ending: Omit<RunEnd, "at">): void {
    this.#db.prepare("UPDATE runs SET state = 'stopping', ending = ? WHERE id = ?").run(JSON.stringify(ending), id);
  }

  /** After the last resource was given back. */
  endRun({ id, sandboxKey }: RunRecord, end: RunEnd): void {
    transaction(this.#db, () => {
      this.#db
        .prepare("UPDATE sandboxes SET last_end = ?, last_active = max(last_active, ?) WHERE key = ?")
        .run(JSON.stringify(end), end.at, sandboxKey);
      this.#db.prepare("DELETE FROM runs WHERE id = ?").run(id);
    });
    const lastActive = Math.max(this.#byKey.get(sandboxKey)?.lastActive ?? 0, end.at);
    this.#change(sandboxKey, { lastEnd: end, lastActive });
  }

  runOf(key: string): RunRecord | undefined {
    const row = this.#db.prepare("SELECT * FROM runs WHERE sandbox_key = ?").get(key);
    return row && toRun(row);
  }

  runs(): RunRecord[] {
    return this.#db.prepare("SELECT * FROM runs").all().map(toRun);
  }

  /** The intent of a destroy: the name is free, the key is garbage until nothing of it is left. */
  discard({ key, name }: SandboxRecord, now: number): void {
    transaction(this.#db, () => {
      this.#db.prepare("DELETE FROM sandboxes WHERE key = ?").run(key);
      this.#db.prepare("INSERT OR IGNORE INTO garbage (key, discarded) VALUES (?, ?)").run(key, now);
    });
    this.#byName.delete(name);
    this.#byKey.delete(key);
  }

  garbage(): string[] {
    return this.#db
      .prepare("SELECT key FROM garbage")
      .all()
      .map((row) => String(row["key"]));
  }

  /** Forgets what was discarded before this time. */
  forgetGarbage(before: number): void {
    this.#db.prepare("DELETE FROM garbage WHERE discarded < ?").run(before);
  }

  /** Digests that some sandbox or warm run is made on: such an image must not be removed. */
  imagesInUse(): Set<string> {
    return new Set([...[...this.#byName.values()].map((record) => record.imageDigest), ...this.#warmImages.values()]);
  }

  #keep(record: SandboxRecord): SandboxRecord {
    this.#byName.set(record.name, record);
    this.#byKey.set(record.key, record);
    return record;
  }

  #change(key: string, changes: Partial<SandboxRecord>): void {
    const record = this.#byKey.get(key);
    if (record) this.#keep({ ...record, ...changes });
  }
}

type Row = Record<string, unknown>;

function toSandbox(row: Row): SandboxRecord {
  const lastEnd = row["last_end"] as string | null;
  return {
    name: row["name"] as string,
    key: row["key"] as string,
    config: JSON.parse(row["config"] as string) as StoredConfig,
    image: row["image"] as string,
    imageDigest: row["image_digest"] as string,
    runNumber: row["run_number"] as number,
    created: row["created"] as number,
    lastActive: row["last_active"] as number,
    ...(lastEnd !== null && { lastEnd: JSON.parse(lastEnd) as RunEnd }),
  };
}

function toRun(row: Row): RunRecord {
  const [slot, pid, startTime] = [row["slot"], row["pid"], row["pid_started"]] as (number | null)[];
  const bootId = row["boot"] as string;
  const [warm, ending] = [row["warm"], row["ending"]] as (string | null)[];
  return {
    id: row["id"] as string,
    sandboxKey: row["sandbox_key"] as string,
    number: row["number"] as number,
    state: row["state"] as RunRecord["state"],
    ...(slot != null && { slot }),
    bootId,
    ...(pid != null && startTime != null && { process: { bootId, pid, startTime } }),
    began: row["began"] as number,
    ...(ending != null && { ending: JSON.parse(ending) as Omit<RunEnd, "at"> }),
    ...(warm != null && { warm: JSON.parse(warm) as WarmMake }),
    waitedMs: row["waited_ms"] as number,
  };
}
