import type { Row } from "./benchmark.ts";
import { percentile } from "./statistics.ts";

/** What the design promises (DESIGN.md, "Budgets"), for two cores: the most that a row's median may be. */
export const budgets = {
  "exec argv": { most: 2, unit: "ms" },
  "exec shell": { most: 3.5, unit: "ms" },
  "new name": { most: 60, unit: "ms" },
  "warm start": { most: 10, unit: "ms" },
  wake: { most: 60, unit: "ms" },
  "burst of 100": { most: 5_000, unit: "ms" },
  "burst of 100 with the pool": { most: 5_000, unit: "ms" },
  "memory of an idle sandbox": { most: 3, unit: "MiB" },
  "daemon RSS with 1,000 idle": { most: 250e6 / 2 ** 20, unit: "MiB" },
  "daemon CPU with 1,000 idle": { most: 2, unit: "%" },
  "terminal echo": { most: 3, unit: "ms" },
  "daemon growth with 1,000 terminals": { most: 100, unit: "MiB" },
  "daemon CPU with 1,000 terminals": { most: 2, unit: "%" },
  "watch event": { most: 10, unit: "ms" },
  "npm ci against the host": { most: 1.15, unit: "x" },
  "preview against the port": { most: 2, unit: "x" },
} as const;

export type BudgetName = keyof typeof budgets;

/** Undefined for a row without a budget. */
export function verdictOf(row: Row): { budget: number; held: boolean } | undefined {
  if (!row.budget || row.samples.length === 0) return undefined;
  const { most } = budgets[row.budget];
  return { budget: most, held: percentile(row.samples, 50) <= most };
}
