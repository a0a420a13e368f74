import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { ExecRequest, Restart } from "../../protocol/process.ts";

/** A process that is started again: what was asked for when it was made, and the last run in which it was started. */
export type Service = {
  sandboxKey: string;
  id: string;
  restart: Exclude<Restart, "never">;
  request: ExecRequest;
  run: number;
};

/** The rows of services. They go with their sandbox. Every change is one transaction, done when the method returns. */
export class ServiceTable {
  readonly #db: DatabaseSync;
  /** Prepared once: every start of a process asks. */
  readonly #find: StatementSync;

  constructor(db: DatabaseSync) {
    this.#db = db;
    this.#find = db.prepare("SELECT * FROM services WHERE sandbox_key = ? AND id = ?");
  }

  /** Those of a sandbox, in the order in which they were made. */
  of(sandboxKey: string): Service[] {
    return this.#db
      .prepare("SELECT * FROM services WHERE sandbox_key = ? ORDER BY rowid")
      .all(sandboxKey)
      .map(toService);
  }

  find(sandboxKey: string, id: string): Service | undefined {
    const row = this.#find.get(sandboxKey, id);
    return row && toService(row);
  }

  put({ sandboxKey, id, restart, request, run }: Service): void {
    this.#db
      .prepare(
        `INSERT INTO services (sandbox_key, id, restart, request, run) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET restart = excluded.restart, request = excluded.request, run = excluded.run`,
      )
      .run(sandboxKey, id, restart, JSON.stringify(request), run);
  }

  /** Notes that the service was started in this run. */
  setRun(sandboxKey: string, id: string, run: number): void {
    this.#db.prepare("UPDATE services SET run = ? WHERE sandbox_key = ? AND id = ?").run(run, sandboxKey, id);
  }

  /** Whether there was one. */
  remove(sandboxKey: string, id: string): boolean {
    return this.#db.prepare("DELETE FROM services WHERE sandbox_key = ? AND id = ?").run(sandboxKey, id).changes > 0;
  }

  removeAll(sandboxKey: string): void {
    this.#db.prepare("DELETE FROM services WHERE sandbox_key = ?").run(sandboxKey);
  }
}

function toService(row: Record<string, unknown>): Service {
  return {
    sandboxKey: row["sandbox_key"] as string,
    id: row["id"] as string,
    restart: row["restart"] as Service["restart"],
    request: JSON.parse(row["request"] as string) as ExecRequest,
    run: row["run"] as number,
  };
}
