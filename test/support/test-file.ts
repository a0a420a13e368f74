import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import type { Readable } from "node:stream";
import type { TestLine } from "./event-reporter.ts";

export type FileResult = {
  path: string;
  passed: number;
  skipped: { name: string; reason: string }[];
  /** Failed tests, and the file itself when it broke, never ended or held no test. */
  failed: { name: string; error: string }[];
  /** What the file wrote to stdout and stderr. */
  output: string;
  durationMs: number;
};

/** The longest files take a minute, on a slow machine four; one beyond this hangs on something it opened and did not give back. */
const fileLimitMs = 10 * 60_000;

const reporter = new URL("./event-reporter.ts", import.meta.url).href;

/** Runs one test file in a process group of its own, which is ended with it. Never throws. */
export async function runTestFile(path: string, cwd: string): Promise<FileResult> {
  const began = performance.now();
  const child = spawn(process.execPath, [`--test-reporter=${reporter}`, "--test-reporter-destination=stdout", path], {
    cwd,
    detached: true,
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  let hung = false;
  const end = () => killGroup(child.pid);
  const watchdog = setTimeout(() => {
    hung = true;
    end();
  }, fileLimitMs);
  process.once("exit", end);
  const ended = new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("exit", (code, signal) => {
      // What the file started and left behind would hold our pipes open.
      end();
      resolve(code === 0 ? "" : `It ended with ${signal ?? `exit code ${code}`}`);
    });
  });
  const lines = text(child.stdio[3] as Readable);
  const output = Promise.all([text(child.stdout!), text(child.stderr!)]);
  const trouble = await ended;
  clearTimeout(watchdog);
  process.off("exit", end);
  const result = tally(path, await lines, (await output).join(""));
  if (hung) result.failed.push({ name: "the file", error: `It did not end within ${fileLimitMs / 1_000} s` });
  else if (trouble && result.failed.length === 0) result.failed.push({ name: "the file", error: trouble });
  if (result.passed + result.skipped.length + result.failed.length === 0) {
    result.failed.push({ name: "the file", error: "No test is in it" });
  }
  return { ...result, durationMs: performance.now() - began };
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nobody is left in the group: the usual case.
  }
}

function tally(path: string, lines: string, output: string): FileResult {
  const result: FileResult = { path, passed: 0, skipped: [], failed: [], output, durationMs: 0 };
  // A killed reporter may have written half of its last line.
  for (const line of lines.split("\n").slice(0, -1)) {
    const event = JSON.parse(line) as TestLine;
    if (event.type === "passed") result.passed += 1;
    else if (event.type === "skipped") result.skipped.push(event);
    else result.failed.push(event);
  }
  return result;
}
