import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { promisify } from "node:util";
import { run } from "../daemon/linux/run.ts";
import { timed } from "./benchmark.ts";
import { percentile } from "./statistics.ts";

export type MachineFacts = {
  cpu: string;
  cpus: number;
  memoryGiB: number;
  system: string;
  kernel: string;
  versions: Record<string, string>;
};

export async function describeMachine(peers: Record<string, string>): Promise<MachineFacts> {
  const system = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "unknown";
  const head = await run("git", ["-C", import.meta.dirname, "describe", "--always", "--dirty"]).catch(() => "unknown");
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cpus: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system,
    kernel: release(),
    versions: { atoll: head.trim(), node: process.versions.node, ...peers },
  };
}

/** What `startMs` gives on a machine of the kind for which the budgets are meant, when nobody else uses it. */
export const referenceStartMs = 1.7;

/**
 * Median time in which Node starts a program that does nothing and sees its end. Of two virtual machines with the same processor
 * one may take seven times as long: what a page fault costs there decides.
 */
export async function startMs(samples = 60): Promise<number> {
  const start = () => timed(() => promisify(execFile)("/bin/true"));
  for (let warm = 0; warm < 10; warm++) await start();
  const took: number[] = [];
  while (took.length < samples) took.push(await start());
  return percentile(took, 50);
}

/** How much of all processors was in use during the next `ms`, in percent: what is taken by others before we begin. */
export async function busyPercent(ms = 500): Promise<number> {
  const before = readTimes();
  await new Promise((resolve) => setTimeout(resolve, ms));
  const after = readTimes();
  return 100 * (1 - (after.idle - before.idle) / (after.all - before.all));
}

function readTimes(): { idle: number; all: number } {
  const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n", 1);
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
  return { idle: ticks[3]! + ticks[4]!, all: ticks.reduce((sum, value) => sum + value, 0) };
}
