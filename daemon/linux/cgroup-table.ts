import { existsSync } from "node:fs";
import { join } from "node:path";
import type { CgroupVersion, GroupLimits } from "./cgroup.ts";

/** Where a number lies and how its text is read; undefined when the text does not have it. */
export type Reading = { controller: string; file: string; parse: (text: string) => number | undefined };

export type Writing = { controller: string; file: string; value: string; optional?: boolean };

/** Everything that *we* read and write in a group, for one version; the runtime does the rest. */
export type CgroupTable = {
  needed: readonly string[];
  cpuNs: Reading;
  memoryBytes: Reading;
  inactiveFileBytes: Reading;
  memoryLimitBytes: Reading;
  oomKills: Reading;
  pids: Reading;
  pidsRefused: Reading;
  kill?: Writing;
  freeze: Writing;
  thaw: Writing;
  /** In the order in which the kernel takes them. `memoryNow` is the present limit, bytes. */
  writes: (limits: GroupLimits, memoryNow: number | undefined) => Writing[];
  swapAccounting: (rootOf: (controller: string) => string | undefined) => boolean;
};

const v1: CgroupTable = {
  needed: ["cpu", "cpuacct", "memory", "pids", "devices", "freezer"],
  cpuNs: { controller: "cpuacct", file: "cpuacct.usage", parse: single },
  memoryBytes: { controller: "memory", file: "memory.usage_in_bytes", parse: single },
  inactiveFileBytes: { controller: "memory", file: "memory.stat", parse: keyed("total_inactive_file") },
  memoryLimitBytes: { controller: "memory", file: "memory.limit_in_bytes", parse: limit },
  oomKills: { controller: "memory", file: "memory.oom_control", parse: keyed("oom_kill") },
  pids: { controller: "pids", file: "pids.current", parse: single },
  pidsRefused: { controller: "pids", file: "pids.events", parse: keyed("max") },
  freeze: { controller: "freezer", file: "freezer.state", value: "FROZEN" },
  thaw: { controller: "freezer", file: "freezer.state", value: "THAWED" },
  writes: ({ cpuShares, cpuQuotaUs, memoryBytes, pids }, memoryNow = 0) => {
    const memory = { controller: "memory", file: "memory.limit_in_bytes", value: String(memoryBytes) };
    const withSwap = { ...memory, file: "memory.memsw.limit_in_bytes", optional: true };
    return [
      ...given(cpuShares, (n) => [{ controller: "cpu", file: "cpu.shares", value: String(n) }]),
      ...given(cpuQuotaUs, (n) => [
        { controller: "cpu", file: "cpu.cfs_period_us", value: String(periodUs) },
        { controller: "cpu", file: "cpu.cfs_quota_us", value: n === "max" ? "-1" : String(n) },
      ]),
      // Memory with swap may never be below memory alone, not even between two writes.
      ...given(memoryBytes, (n) => (n > memoryNow ? [withSwap, memory] : [memory, withSwap])),
      ...given(pids, (n) => [{ controller: "pids", file: "pids.max", value: String(n) }]),
    ];
  },
  swapAccounting: (rootOf) => existsSync(join(rootOf("memory") ?? "/nonexistent", "memory.memsw.limit_in_bytes")),
};

const v2: CgroupTable = {
  needed: ["cpu", "memory", "pids"],
  cpuNs: { controller: "cpu", file: "cpu.stat", parse: (text) => microseconds(keyed("usage_usec")(text)) },
  memoryBytes: { controller: "memory", file: "memory.current", parse: single },
  inactiveFileBytes: { controller: "memory", file: "memory.stat", parse: keyed("inactive_file") },
  memoryLimitBytes: { controller: "memory", file: "memory.max", parse: limit },
  oomKills: { controller: "memory", file: "memory.events", parse: keyed("oom_kill") },
  pids: { controller: "pids", file: "pids.current", parse: single },
  pidsRefused: { controller: "pids", file: "pids.events", parse: keyed("max") },
  // Since kernel 5.14; older ones are frozen instead.
  kill: { controller: "core", file: "cgroup.kill", value: "1" },
  freeze: { controller: "core", file: "cgroup.freeze", value: "1" },
  thaw: { controller: "core", file: "cgroup.freeze", value: "0" },
  writes: ({ cpuShares, cpuQuotaUs, memoryBytes, pids }) => [
    ...given(cpuShares, (n) => [{ controller: "cpu", file: "cpu.weight", value: String(weightOf(n)) }]),
    ...given(cpuQuotaUs, (n) => [{ controller: "cpu", file: "cpu.max", value: `${n} ${periodUs}` }]),
    ...given(memoryBytes, (n) => [
      { controller: "memory", file: "memory.max", value: String(n) },
      { controller: "memory", file: "memory.swap.max", value: "0", optional: true },
    ]),
    ...given(pids, (n) => [{ controller: "pids", file: "pids.max", value: String(n) }]),
  ],
  // The root group has no memory.swap.max to look for; without a swap area there is nothing to account.
  swapAccounting: (rootOf) => existsSync("/proc/swaps") && rootOf("memory") !== undefined,
};

/** A hybrid machine keeps every controller in v1; its v2 mount carries none, only a directory of each group. */
export const cgroupTables: Record<CgroupVersion, CgroupTable> = { v1, hybrid: v1, v2 };

/** The kernel's default period; spec.ts uses the same. */
const periodUs = 100_000;

/** The OCI runtimes' own conversion of v1 shares (2–262,144) to a v2 weight (1–10,000), so that both ways of setting it agree. */
export function weightOf(shares: number): number {
  return 1 + Math.floor(((Math.min(Math.max(shares, 2), 262_144) - 2) * 9999) / 262_142);
}

function single(text: string): number | undefined {
  const value = Number(text);
  return text.trim() === "" || Number.isNaN(value) ? undefined : value;
}

/** "max", or v1's largest page-aligned 64-bit number. */
function limit(text: string): number | undefined {
  if (text.trim() === "max") return Infinity;
  const value = single(text);
  return value !== undefined && value >= 2 ** 62 ? Infinity : value;
}

function keyed(key: string): (text: string) => number | undefined {
  const line = new RegExp(`^${key} (\\d+)$`, "m");
  return (text) => {
    const found = line.exec(text)?.[1];
    return found === undefined ? undefined : Number(found);
  };
}

function microseconds(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value * 1000;
}

function given<T>(value: T | undefined, writes: (value: T) => Writing[]): Writing[] {
  return value === undefined ? [] : writes(value);
}
