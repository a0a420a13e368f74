import type { Row } from "./benchmark.ts";
import { verdictOf } from "./budgets.ts";
import { type MachineFacts, referenceStartMs } from "./machine.ts";
import { percentile } from "./statistics.ts";

export type Result = { name: string; about: string; rows: Row[]; seconds: number; busyBefore: number; startMs: number };

export function printMachine(facts: MachineFacts): void {
  console.log(`${facts.cpus} x ${facts.cpu}, ${facts.memoryGiB} GiB, ${facts.system}, Linux ${facts.kernel}`);
  console.log(
    Object.entries(facts.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(" · "),
  );
}

/** One benchmark as a table. "ratio" is the row's median in those of the first row (of its group): 2.0 is twice as long. */
export function printResult({ name, about, rows, seconds, busyBefore, startMs }: Result): void {
  console.log(`\n${name}: ${about}`);
  console.log(
    `  ${seconds.toFixed(0)} s; the machine was ${busyBefore.toFixed(0)} % busy before it began, and starts a process in ${shown(startMs)} ms`,
  );
  const table = [
    ["", "unit", "n", "p50", "p95", "p99", "ratio", "budget"],
    ...rows.map((row) => [
      row.what,
      row.unit,
      String(row.samples.length),
      ...[50, 95, 99].map((percent) => shown(percentile(row.samples, percent))),
      ratioOf(row, rows)?.toFixed(2) ?? "",
      budgetText(row, startMs),
    ]),
  ];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((cells) => cells[column]!.length)));
  for (const cells of table) {
    const padded = cells.map((cell, column) =>
      column === 0 || column === 7 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
    );
    console.log(`  ${padded.join("  ").trimEnd()}`);
  }
}

/** Everything, samples included, so that two runs can be compared later. */
export function toJson(facts: MachineFacts, results: readonly Result[]): string {
  const benchmarks = results.map(({ rows, ...result }) => ({
    ...result,
    rows: rows.map((row) => ({
      ...row,
      p50: percentile(row.samples, 50),
      p95: percentile(row.samples, 95),
      p99: percentile(row.samples, 99),
      ratio: ratioOf(row, rows),
      verdict: verdictOf(row, result.startMs),
    })),
  }));
  return `${JSON.stringify({ version: 1, at: new Date().toISOString(), machine: facts, benchmarks }, null, 2)}\n`;
}

function ratioOf(row: Row, rows: readonly Row[]): number | undefined {
  const first = rows.find((other) => other.group === row.group && other.unit === row.unit);
  if (!first || first === row) return undefined;
  return percentile(row.samples, 50) / percentile(first.samples, 50);
}

function budgetText(row: Row, startMs: number): string {
  const verdict = verdictOf(row, startMs);
  if (!verdict) return "";
  const { budget, held, onReference } = verdict;
  const scaled = onReference === undefined ? "" : `; ${shown(onReference)} at ${referenceStartMs} ms for a process`;
  return `${held ? "held" : "MISSED"} (${shown(budget)})${scaled}`;
}

function shown(value: number): string {
  if (Number.isNaN(value)) return "-";
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
