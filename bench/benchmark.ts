import type { BudgetName } from "./budgets.ts";
import type { World } from "./world.ts";

/** One file in `benchmarks/`: what is measured, and its rows. */
export type Benchmark = {
  name: string;
  /** One sentence: what a round does, and what its time includes. */
  about: string;
  measure(world: World): Promise<Row[]>;
};

export type Unit = "ms" | "MB/s" | "req/s" | "MiB" | "%" | "x";

/** All samples of one contestant. The first row of a benchmark is what the ratios of the others refer to. */
export type Row = {
  what: string;
  unit: Unit;
  samples: readonly number[];
  /** The promise that this row's median must keep. */
  budget?: BudgetName;
  /** Another row's ratios refer to this one instead of the first: rows with the same word belong together. */
  group?: string;
};

export type Contestant = Omit<Row, "samples" | "unit"> & {
  unit?: Unit;
  /** Takes part in every n-th round only: contestants that are slow. */
  every?: number;
  /** One measurement or several in a row; what it prepares and clears is not in the numbers that it gives. */
  round(round: number): Promise<number | number[]>;
};

/**
 * Lets the contestants take turns, round by round, each round beginning with another one: the machine is shared and its
 * noise must meet them all. One round before counts for nothing.
 */
export async function interleave(contestants: readonly Contestant[], rounds: number): Promise<Row[]> {
  const samples = contestants.map((): number[] => []);
  for (let round = -1; round < rounds; round++) {
    for (let turn = 0; turn < contestants.length; turn++) {
      const index = (turn + Math.max(round, 0)) % contestants.length;
      const contestant = contestants[index]!;
      if (round >= 0 && round % (contestant.every ?? 1) !== 0) continue;
      const value = await contestant.round(round);
      if (round >= 0) samples[index]!.push(...[value].flat());
    }
  }
  return contestants.map(({ round: _, every: __, unit = "ms", ...row }, index) => ({
    ...row,
    unit,
    samples: samples[index]!,
  }));
}

/** Milliseconds that `work` took. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/**
 * `count` measurements in a row, after one that counts for nothing: for work so short that what the contestant before has
 * left behind (cold caches, processes that are still ending) would be most of the figure.
 */
export async function inARow(count: number, work: () => Promise<unknown>): Promise<number[]> {
  await work();
  const samples: number[] = [];
  while (samples.length < count) samples.push(await timed(work));
  return samples;
}
