import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { until } from "./until.ts";

/** A run as its row says, beside the daemon. */
export type RunRow = {
  id: string;
  sandbox_key: string;
  number: number;
  state: string;
  pid: number;
  /** What a run that nobody has claimed is made of, as JSON. */
  warm: string | null;
  waited_ms: number;
};

export function runRows(dataDir: string): RunRow[] {
  return read(dataDir, "SELECT * FROM runs ORDER BY id") as RunRow[];
}

/** The row of this sandbox's run. */
export function runRowOf(dataDir: string, name: string): RunRow | undefined {
  const [row] = read(dataDir, "SELECT runs.* FROM runs JOIN sandboxes ON key = sandbox_key WHERE name = ?", name);
  return row as RunRow | undefined;
}

/** Runs that are ready and nobody's. */
export function warmRows(dataDir: string): RunRow[] {
  return runRows(dataDir).filter(({ warm, state }) => warm !== null && state === "running");
}

/** Waits until exactly so many runs wait in the pool, and no other is being made; gives them. */
export function untilWarm(dataDir: string, count: number): Promise<RunRow[]> {
  return until(`${count} warm runs wait`, () => {
    const rows = warmRows(dataDir);
    const making = runRows(dataDir).some(({ warm, state }) => warm !== null && state !== "running");
    return rows.length === count && !making && rows;
  });
}

/** Types of the journal's lines about this sandbox, in order. */
export function journalOf(dataDir: string, key: string): string[] {
  return read(dataDir, "SELECT type FROM journal WHERE sandbox_key = ? ORDER BY seq", key).map(({ type }) =>
    String(type),
  );
}

export function read(dataDir: string, sql: string, ...values: string[]): Record<string, unknown>[] {
  const db = new DatabaseSync(join(dataDir, "state.db"), { readOnly: true, timeout: 5_000 });
  try {
    return db.prepare(sql).all(...values);
  } finally {
    db.close();
  }
}
