import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import type { Benchmark } from "./benchmark.ts";
import { burst } from "./benchmarks/burst.ts";
import { churn } from "./benchmarks/churn.ts";
import { density } from "./benchmarks/density.ts";
import { exec } from "./benchmarks/exec.ts";
import { files } from "./benchmarks/files.ts";
import { newName } from "./benchmarks/new-name.ts";
import { npmCi } from "./benchmarks/npm-ci.ts";
import { preview } from "./benchmarks/preview.ts";
import { terminal } from "./benchmarks/terminal.ts";
import { terminals } from "./benchmarks/terminals.ts";
import { wake } from "./benchmarks/wake.ts";
import { warm } from "./benchmarks/warm.ts";
import { watch } from "./benchmarks/watch.ts";
import { verdictOf } from "./budgets.ts";
import { busyPercent, describeMachine, startMs } from "./machine.ts";
import { printMachine, printResult, type Result, toJson } from "./report.ts";
import { mean } from "./statistics.ts";
import { openWorld } from "./world.ts";

const all: readonly Benchmark[] = [
  exec,
  newName,
  warm,
  wake,
  burst,
  files,
  watch,
  terminal,
  preview,
  npmCi,
  density,
  terminals,
  churn,
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "string", default: join(import.meta.dirname, "../.build/bench.json") },
    help: { type: "boolean" },
  },
});
const unknown = positionals.filter((name) => !all.some((benchmark) => benchmark.name === name));
if (values.help || unknown.length > 0) {
  console.log("Usage: npm run bench -- [--json FILE] [NAME...]\n");
  for (const { name, about } of all) console.log(`  ${name.padEnd(9)} ${about}`);
  process.exit(values.help ? 0 : 2);
}

const results: Result[] = [];
{
  await using world = await openWorld();
  const facts = await describeMachine(world.peers.versions);
  printMachine(facts);
  for (const benchmark of all) {
    const { name, about } = benchmark;
    if (positionals.length > 0 && !positionals.includes(name)) continue;
    const busyBefore = await busyPercent();
    const startsMs = [await startMs()];
    const began = performance.now();
    const rows = await benchmark.measure(world);
    const seconds = (performance.now() - began) / 1_000;
    startsMs.push(await startMs()); // a shared machine changes its pace
    results.push({ name, about, rows, busyBefore, startMs: mean(startsMs), seconds });
    printResult(results.at(-1)!);
  }
  await mkdir(dirname(values.json), { recursive: true });
  await writeFile(values.json, toJson(facts, results));
}
const judged = results.flatMap(({ rows, startMs }) => rows.flatMap((row) => verdictOf(row, startMs) ?? []));
const held = judged.filter((verdict) => verdict.held).length;
console.log(`\n${held} of ${judged.length} budgets held. Figures: ${values.json}`);
