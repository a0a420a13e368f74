import { existsSync, globSync } from "node:fs";
import { dirname, join } from "node:path";
import { runProgram } from "./program.ts";
import type { FileResult } from "./test-file.ts";

/** Folders of Go modules that have tests. */
export function goModules(root: string): string[] {
  const folders = globSync("{agent,daemon}/**/*_test.go", { cwd: root }).map((file) => dirname(file));
  return [...new Set(folders)].filter((folder) => existsSync(join(root, folder, "go.mod")));
}

/** Go's own tests of a module, with the race detector. Never throws. */
export async function runGoTests(root: string, module: string): Promise<FileResult> {
  const began = performance.now();
  const { code, stdout, stderr } = await runProgram("go", ["test", "-race", "-json", "./..."], {
    cwd: join(root, module),
    env: { ...process.env, GOPROXY: "off" },
  });
  const result = tally(join(root, module), stdout, stderr);
  if (code !== 0 && result.failed.length === 0) result.failed.push({ name: "go test", error: result.output });
  return { ...result, durationMs: performance.now() - began };
}

type GoEvent = { Action: string; Test?: string; Output?: string };

/** Go writes JSON events to stdout, but the errors of a module that does not compile as they are. */
function tally(path: string, stdout: string, stderr: string): FileResult {
  const result: FileResult = { path, passed: 0, skipped: [], failed: [], output: stderr, durationMs: 0 };
  const words = new Map<string, string>();
  for (const line of stdout.split("\n")) {
    const event: GoEvent = line.startsWith("{") ? (JSON.parse(line) as GoEvent) : { Action: "output", Output: line };
    const { Action: action, Test: name, Output: output = "" } = event;
    if (name === undefined) result.output += output;
    else if (action === "output") words.set(name, (words.get(name) ?? "") + output);
    else if (action === "pass") result.passed += 1;
    else if (action === "skip") result.skipped.push({ name, reason: (words.get(name) ?? "").trim() });
    else if (action === "fail") result.failed.push({ name, error: words.get(name) ?? "" });
  }
  return result;
}
