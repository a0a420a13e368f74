import type { Row, Unit } from "./benchmark.ts";
import { referenceStartMs } from "./machine.ts";
import { percentile } from "./statistics.ts";

/**
 * What the design promises (DESIGN.md, "Budgets"), for two cores: the most that a row's median may be. `of: "starts"`: most of
 * that time the kernel makes processes, and how long that takes is told of each machine (machine.ts).
 */
export const budgets = {
  "exec argv": { most: 2, unit: "ms", of: "starts" },
  "exec shell": { most: 3.5, unit: "ms", of: "starts" },
  "new name": { most: 60, unit: "ms", of: "starts" },
  "warm start": { most: 10, unit: "ms", of: "starts" },
  wake: { most: 60, unit: "ms", of: "starts" },
  "burst of 100": { most: 5_000, unit: "ms", of: "starts" },
  "burst of 100 with the pool": { most: 5_000, unit: "ms", of: "starts" },
  "memory of an idle sandbox": { most: 3, unit: "MiB" },
  "daemon RSS with 1,000 idle": { most: 250e6 / 2 ** 20, unit: "MiB" },
  "daemon CPU with 1,000 idle": { most: 2, unit: "%" },
  "terminal echo": { most: 3, unit: "ms" },
  "daemon growth with 1,000 terminals": { most: 100, unit: "MiB" },
  "daemon CPU with 1,000 terminals": { most: 2, unit: "%" },
  "watch event": { most: 10, unit: "ms" },
  "npm ci against the host": { most: 1.15, unit: "x" },
  "preview against the port": { most: 2, unit: "x" },
} as const satisfies Record<string, { most: number; unit: Unit; of?: "starts" }>;

export type BudgetName = keyof typeof budgets;

/** `onReference`: what the median would be where a process starts in `referenceStartMs`; nobody is judged by that. */
export type Verdict = { budget: number; held: boolean; onReference?: number };

/** Undefined for a row without a budget. `startMs`: how long this machine takes for a process. */
export function verdictOf(row: Row, startMs: number): Verdict | undefined {
  if (!row.budget || row.samples.length === 0) return undefined;
  const budget: { most: number; of?: "starts" } = budgets[row.budget];
  const median = percentile(row.samples, 50);
  return {
    budget: budget.most,
    held: median <= budget.most,
    ...(budget.of === "starts" && { onReference: (median * referenceStartMs) / startMs }),
  };
}
