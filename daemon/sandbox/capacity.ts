import { readFileSync } from "node:fs";
import { SandboxError } from "../../protocol/errors.ts";
import { describeShortage, freeSpace, judgeSpace } from "../storage/space.ts";
import type { Machines } from "./machines.ts";

/** What must stay free of the host's memory: its own programs, and the page cache that all sandboxes live on. */
const keepFreeRatio = 0.05;
/** On small hosts five percent is too little to go on working. */
const keepFreeBytes = 256 * 1024 ** 2;

/** Refuses a start with CAPACITY_EXCEEDED when the host is short of memory or disk. */
export async function requireCapacity({ disks }: Machines): Promise<void> {
  const { totalBytes, availableBytes } = readMemory(readFileSync("/proc/meminfo", "utf8"));
  const needed = neededBytes(totalBytes);
  if (availableBytes < needed) {
    throw new SandboxError(
      "CAPACITY_EXCEEDED",
      `Cannot start a sandbox: the host has ${mebibytes(availableBytes)} MiB of memory left, ${mebibytes(needed)} MiB must stay free`,
      {
        suggestion: "Stop sandboxes that are not needed, or try again later",
      },
    );
  }
  const space = await freeSpace(disks.spacePaths);
  if (judgeSpace(space) === "enough") return;
  const { message, suggestion } = describeShortage(space, disks.spacePaths[0] ?? "");
  throw new SandboxError("CAPACITY_EXCEEDED", message, { suggestion });
}

/**
 * What the host can spare for runs that nobody has asked for: "some" more, only those that are there ("kept"), or "none". They go
 * well before a start is refused.
 */
export async function spareCapacity({ disks }: Machines): Promise<"some" | "kept" | "none"> {
  const { totalBytes, availableBytes } = readMemory(readFileSync("/proc/meminfo", "utf8"));
  const needed = neededBytes(totalBytes);
  if (availableBytes < needed * 1.5 || judgeSpace(await freeSpace(disks.spacePaths)) !== "enough") return "none";
  // A gap between giving back and making again, or the two would take turns.
  return availableBytes < needed * 2 ? "kept" : "some";
}

function neededBytes(totalBytes: number): number {
  return Math.max(keepFreeBytes, totalBytes * keepFreeRatio);
}

/** The kernel's own estimate of what new programs can have. */
export function readMemory(meminfo: string): { totalBytes: number; availableBytes: number } {
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(meminfo)?.[1] ?? NaN) * 1024;
  return { totalBytes: bytes("MemTotal"), availableBytes: bytes("MemAvailable") };
}

function mebibytes(bytes: number): number {
  return Math.floor(bytes / 1024 ** 2);
}
