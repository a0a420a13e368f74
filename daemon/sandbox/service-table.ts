import type { DatabaseSync } from "node:sqlite";
import type { ExecRequest, Restart } from "../../protocol/process.ts";

/** A process that is started again: what was asked for when it was made, and the last run in which it was started. */
export type Service = {
  sandboxKey: string;
  id: string;
  restart: Exclude<Restart, "never">;
  request: ExecRequest;
  run: number;
};

/**
 * The rows of services. Every change is one transaction, done when the method returns; they go with their sandbox. Reads
 * come from memory: every end of a process asks.
 */
export class ServiceTable {
  readonly #db: DatabaseSync;
  /** By sandbox, in the order in which they were made. */
  readonly #services = new Map<string, Map<string, Service>>();

  constructor(db: DatabaseSync) {
    this.#db = db;
    for (const row of db.prepare("SELECT * FROM services ORDER BY rowid").all()) this.#keep(toService(row));
  }

  /** Those of a sandbox, in the order in which they were made. */
  of(sandboxKey: string): Service[] {
    return [...(this.#services.get(sandboxKey)?.values() ?? [])];
  }

  find(sandboxKey: string, id: string): Service | undefined {
    return this.#services.get(sandboxKey)?.get(id);
  }

  put(service: Service): void {
    const { sandboxKey, id, restart, request, run } = service;
    this.#db
      .prepare(
        `INSERT INTO services (sandbox_key, id, restart, request, run) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET restart = excluded.restart, request = excluded.request, run = excluded.run`,
      )
      .run(sandboxKey, id, restart, JSON.stringify(request), run);
    this.#keep(service);
  }

  /** Notes that the service was started in this run. */
  setRun(sandboxKey: string, id: string, run: number): void {
    this.#db.prepare("UPDATE services SET run = ? WHERE sandbox_key = ? AND id = ?").run(run, sandboxKey, id);
    const service = this.find(sandboxKey, id);
    if (service) this.#keep({ ...service, run });
  }

  /** Whether there was one. */
  remove(sandboxKey: string, id: string): boolean {
    if (!this.find(sandboxKey, id)) return false;
    this.#db.prepare("DELETE FROM services WHERE sandbox_key = ? AND id = ?").run(sandboxKey, id);
    this.#services.get(sandboxKey)?.delete(id);
    return true;
  }

  removeAll(sandboxKey: string): void {
    this.#db.prepare("DELETE FROM services WHERE sandbox_key = ?").run(sandboxKey);
    this.#services.delete(sandboxKey);
  }

  /** The sandbox is destroyed; its rows went with it. */
  forget(sandboxKey: string): void {
    this.#services.delete(sandboxKey);
  }

  #keep(service: Service): void {
    const ofSandbox = this.#services.get(service.sandboxKey);
    if (ofSandbox) ofSandbox.set(service.id, service);
    else this.#services.set(service.sandboxKey, new Map([[service.id, service]]));
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
