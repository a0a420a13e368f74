import type { DatabaseSync } from "node:sqlite";
import { isNotTaken, transaction } from "../state.ts";

/** One thing that happened to a sandbox; `data` is what a reader of the journal needs to understand it, never a secret. */
export type JournalLine = {
  time: number;
  sandboxKey: string;
  run: number;
  type: string;
  data: Record<string, unknown>;
};

/** What a sandbox's life is made of, told to those who follow it. An index holds just these. */
export type LifeLine = JournalLine & { type: "run.start" | "run.end" | "run.idle" | "start.failed" };

export type Numbered<Line extends JournalLine> = Line & { seq: number };

/** How long a line may wait for others to be written with it: a burst of commands costs one transaction. */
const batchMs = 100;

/** When lines are tried again that a full disk did not take. */
const againMs = 1_000;

/** Lines that may wait so: 30 MB, hours of commands. */
const waitingLimit = 100_000;

/** The numbered record of everything that happened. Append-only, written in batches; `flush` writes what waits. */
export class Journal {
  readonly #db: DatabaseSync;
  #waiting: JournalLine[] = [];
  #timer: NodeJS.Timeout | undefined;
  #grown = Promise.withResolvers<void>();

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  append(line: JournalLine): void {
    this.#waiting.push(line);
    this.#timer ??= setTimeout(() => this.#flushOrWait(), batchMs);
  }

  /** Writes the line at once, in one transaction with the change that it tells of: never one without the other. */
  write(line: JournalLine, change: () => void = () => {}): void {
    this.flush(); // what was appended before has the lower number
    transaction(this.#db, () => {
      this.#insert([line]);
      change();
    });
    this.#grown.resolve();
    this.#grown = Promise.withResolvers();
  }

  /** A sandbox has got another key: what waits to be written follows it. */
  rekey(from: string, to: string): void {
    this.#waiting = this.#waiting.map((line) => (line.sandboxKey === from ? { ...line, sandboxKey: to } : line));
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting.length === 0) return;
    transaction(this.#db, () => this.#insert(this.#waiting));
    this.#waiting = [];
  }

  /** A full disk must not end the daemon, which is needed to make room: lines wait until there is some. */
  #flushOrWait(): void {
    try {
      this.flush();
    } catch (error) {
      if (!isNotTaken(error) || this.#waiting.length > waitingLimit) throw error;
      this.#timer = setTimeout(() => this.#flushOrWait(), againMs);
    }
  }

  /** Resolves with the next line that is written at once. */
  get grown(): Promise<void> {
    return this.#grown.promise;
  }

  /** The number of the last line written; 0 before the first. */
  lastSeq(): number {
    return Number(this.#db.prepare("SELECT max(seq) AS last FROM journal").get()?.["last"] ?? 0);
  }

  /** The first lines of lives behind this number, at most `limit`. */
  livesAfter(seq: number, limit: number): Numbered<LifeLine>[] {
    return this.#db
      .prepare(
        `SELECT * FROM journal INDEXED BY journal_of_lives
         WHERE type IN ('run.start', 'run.end', 'run.idle', 'start.failed') AND seq > ? ORDER BY seq LIMIT ?`,
      )
      .all(seq, limit)
      .map((row) => toLine(row) as Numbered<LifeLine>);
  }

  /** The last line of this type about this sandbox. */
  lastOf(sandboxKey: string, type: string): Numbered<JournalLine> | undefined {
    const row = this.#db
      .prepare("SELECT * FROM journal WHERE sandbox_key = ? AND type = ? ORDER BY seq DESC LIMIT 1")
      .get(sandboxKey, type);
    return row && toLine(row);
  }

  #insert(lines: readonly JournalLine[]): void {
    const insert = this.#db.prepare("INSERT INTO journal (time, sandbox_key, run, type, data) VALUES (?, ?, ?, ?, ?)");
    for (const line of lines) insert.run(line.time, line.sandboxKey, line.run, line.type, JSON.stringify(line.data));
  }
}

function toLine(row: Record<string, unknown>): Numbered<JournalLine> {
  return {
    seq: row["seq"] as number,
    time: row["time"] as number,
    sandboxKey: row["sandbox_key"] as string,
    run: row["run"] as number,
    type: row["type"] as string,
    data: JSON.parse(row["data"] as string) as Record<string, unknown>,
  };
}
