import type { DatabaseSync } from "node:sqlite";

/** One thing that happened to a sandbox; `data` is what a reader of the journal needs to understand it, never a secret. */
export type JournalLine = {
  time: number;
  sandboxKey: string;
  run: number;
  type: string;
  data: Record<string, unknown>;
};

/** How long a line may wait for others to be written with it: a burst of commands costs one transaction. */
const batchMs = 100;

/** The numbered record of everything that happened. Append-only, written in batches; `flush` writes what waits. */
export class Journal {
  readonly #db: DatabaseSync;
  #waiting: JournalLine[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  append(line: JournalLine): void {
    this.#waiting.push(line);
    this.#timer ??= setTimeout(() => this.flush(), batchMs);
  }

  /** A sandbox has got another key: what waits to be written follows it. */
  rekey(from: string, to: string): void {
    this.#waiting = this.#waiting.map((line) => (line.sandboxKey === from ? { ...line, sandboxKey: to } : line));
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting.length === 0) return;
    const lines = this.#waiting;
    this.#waiting = [];
    const insert = this.#db.prepare("INSERT INTO journal (time, sandbox_key, run, type, data) VALUES (?, ?, ?, ?, ?)");
    this.#db.exec("BEGIN IMMEDIATE");
    for (const line of lines) insert.run(line.time, line.sandboxKey, line.run, line.type, JSON.stringify(line.data));
    this.#db.exec("COMMIT");
  }
}
