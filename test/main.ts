/**
 * The project's tests: `node test/main.ts [--quick] [path…]`.
 *
 * Without arguments everything: checks, Go tests, and every kind of TypeScript test in turn. `--quick` runs the pure and
 * unit tests alone, which need neither root nor Go nor the network. Paths (files or folders) run only the tests there.
 * The exit code is 1 when anything failed or when no test ran. What was skipped is named at the end.
 */
import { globSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { runCheck } from "./support/check.ts";
import { goModules, runGoTests } from "./support/go-tests.ts";
import { runTestFile, type FileResult } from "./support/test-file.ts";

/** The kinds in the order they run; a file belongs to the first that fits it. `width`: files at a time. */
const kinds = [
  { name: "quick", fits: /^(?!test\/(e2e|escape|crash|package|browser)\/)(?!.*\.root\.test\.ts$)/, width: cores() },
  { name: "kernel", fits: /\.root\.test\.ts$/, width: 2 },
  { name: "e2e", fits: /^test\/e2e\//, width: 2 },
  { name: "escape", fits: /^test\/escape\//, width: 2 },
  // Each of these kills daemons at chosen moments; a second one beside it would move the moments.
  { name: "crash", fits: /^test\/crash\//, width: 1 },
  { name: "package", fits: /^test\/package\//, width: 1 },
  { name: "browser", fits: /^test\/browser\//, width: 1 },
];

/** Enough for the last words of a daemon's log, little enough to keep the failure above it in sight. */
const outputTailChars = 8_000;

const root = resolve(import.meta.dirname, "..");

// Leaving by process.exit ends the test files that are under way.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));
process.exitCode = await main();

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({ options: { quick: { type: "boolean" } }, allowPositionals: true });
  const wanted = positionals.map((path) => relative(root, resolve(path)));
  const isWanted = (path: string) => wanted.length === 0 || wanted.some((some) => `${path}/`.startsWith(`${some}/`));
  const quick = values.quick === true;
  const began = performance.now();
  const results: FileResult[] = [];
  const keep = async (kind: string, work: Promise<FileResult>) => {
    const result = await work;
    results.push(result);
    tell(kind, result);
  };

  if (!quick && wanted.length === 0) await keep("check", runCheck(root));
  if (!quick) for (const module of goModules(root).filter(isWanted)) await keep("go", runGoTests(root, module));
  const exclude = ["**/node_modules", "**/dist", "test/fixtures", ".build"];
  const files = globSync("**/*.test.ts", { cwd: root, exclude }).filter(isWanted).sort();
  for (const kind of quick ? kinds.slice(0, 1) : kinds) {
    const ofKind = files.filter((file) => kinds.find(({ fits }) => fits.test(file)) === kind);
    await eachOf(ofKind, kind.width, (file) => keep(kind.name, runTestFile(join(root, file), root)));
  }
  return conclude(results, performance.now() - began);
}

function cores(): number {
  return availableParallelism();
}

async function eachOf<T>(items: T[], width: number, work: (item: T) => Promise<unknown>): Promise<void> {
  const queue = items.values();
  const worker = async () => {
    for (const item of queue) await work(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

function tell(kind: string, result: FileResult): void {
  const failed = result.failed.length > 0;
  const seconds = (result.durationMs / 1_000).toFixed(1);
  const counts = kind === "check" ? "" : `${result.passed} passed, `;
  console.log(`${failed ? "FAILED" : "ok    "} ${kind.padEnd(7)} ${nameOf(result)}  ${counts}${seconds} s`);
  for (const { name, error } of result.failed) console.log(indent(`${name}\n${error}`));
  if (failed && result.output) console.log(indent(`It wrote:\n${result.output.slice(-outputTailChars)}`));
}

function conclude(results: FileResult[], durationMs: number): number {
  const passed = results.reduce((sum, result) => sum + result.passed, 0);
  const failed = results.flatMap((result) => result.failed.map(({ name }) => `${nameOf(result)}: ${name}`));
  const skipped = results.flatMap((result) =>
    result.skipped.map(({ name, reason }) => `${nameOf(result)}: ${name} (${reason})`),
  );
  if (skipped.length > 0) console.log(`\nSkipped:\n${indent(skipped.join("\n"))}`);
  if (failed.length > 0) console.log(`\nFailed:\n${indent(failed.join("\n"))}`);
  const counts = `${passed} passed, ${failed.length} failed, ${skipped.length} skipped`;
  console.log(`\n${counts}; ${results.length} files, ${Math.round(durationMs / 1_000)} s`);
  if (passed === 0) console.log("Cannot call this a success: no test ran");
  return failed.length > 0 || passed === 0 ? 1 : 0;
}

function nameOf(result: FileResult): string {
  return relative(root, result.path) || ".";
}

function indent(text: string): string {
  return text.trimEnd().replace(/^/gm, "    ");
}
