import { closeSync, openSync, readdirSync, readFileSync, readSync, rmdirSync, writeFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cgroupTables } from "./cgroup-table.ts";
import type { CgroupTable, Reading } from "./cgroup-table.ts";
import { parseMountinfo } from "./mount.ts";
import { kill } from "./process.ts";

export type CgroupVersion = "v1" | "hybrid" | "v2";

/**
 * The control groups of this machine. A group is named by its path below every hierarchy's root: `atoll-<tag>/<run>`.
 * Readings are undefined when the group is not there (any more). They are synchronous on purpose: the kernel answers from memory in
 * about 10 µs, a thread pool's round trip costs ten times that, and a sweep reads a thousand of them.
 */
export type Cgroups = {
  version: CgroupVersion;
  /** Controllers that we need and this machine does not have. */
  missing: string[];
  /** Whether memory and swap can be limited together. */
  swapAccounting: boolean;
  /** For who reads a group's processor time again and again. */
  cpuMeter(group: string): CpuMeter;
  /** Memory charged to the group, page cache included, bytes. */
  memoryBytes(group: string): number | undefined;
  /** Page cache that can be had back at once, bytes: what a meter subtracts. */
  inactiveFileBytes(group: string): number | undefined;
  /** Infinity when there is none. */
  memoryLimitBytes(group: string): number | undefined;
  /** How often the kernel killed a process of the group for memory, since it was made. */
  oomKills(group: string): number | undefined;
  /** Tasks (threads count) in the group. */
  pids(group: string): number | undefined;
  /** How often a fork was refused because of the pids limit. */
  pidsRefused(group: string): number | undefined;
  /** Processes in the group and below it. */
  processes(group: string): number[];
  /** Changes what is given, leaves the rest. */
  setLimits(group: string, limits: GroupLimits): void;
  /** Sends SIGKILL to every process of the group and below; none can fork its way out. Returns before they are gone. */
  killAll(group: string): void;
  /** Names of the groups directly below `parent`, in any hierarchy: what recovery compares with its rows. */
  list(parent: string): string[];
  /**
   * Removes the group and everything below from every hierarchy. Waits while processes leave; rejects with the signal's reason,
   * and the pids that stay, when that comes first. A group that is not there is removed.
   */
  remove(group: string, signal?: AbortSignal): Promise<void>;
  /**
   * Makes moves of processes into groups quick for the next 10 ms or so. The first move waits until every processor has
   * been through its scheduler (an RCU grace period, 12 ms; tried), those right after it do not: so one is made that
   * changes nothing, beside other work. Where that is refused, moves are as slow as they are.
   */
  quickenMoves(): Promise<void>;
};

/** Keeps the file open: to open it costs six times as much as to read it. */
export type CpuMeter = {
  /** Processor time used by the group since it was made, nanoseconds; undefined when it is not there (any more). */
  readNs(): number | undefined;
  close(): void;
};

export type GroupLimits = {
  /** Relative to 1,024 for one processor. */
  cpuShares?: number;
  /** Most processor time in microseconds of each 100,000; "max" lifts the bound. */
  cpuQuotaUs?: number | "max";
  /** Memory and swap together. */
  memoryBytes?: number;
  pids?: number;
};

/** Finds the hierarchies in `mountinfo` (default: this process's). Throws when none is mounted. */
export function openCgroups(mountinfo = readFileSync("/proc/self/mountinfo", "latin1")): Cgroups {
  const { version, roots, directories } = findHierarchies(mountinfo);
  const table = cgroupTables[version];
  const pathOf = (group: string, controller: string, file = "") => {
    const root = roots.get(controller);
    return root === undefined ? undefined : join(root, group, file);
  };
  const reading = (group: string, { controller, file, parse }: Reading) => {
    const path = pathOf(group, controller, file);
    const text = path === undefined ? undefined : readIfThere(path);
    return text === undefined ? undefined : parse(text);
  };
  const write = (group: string, controller: string, file: string, value: string) => {
    const path = pathOf(group, controller, file);
    if (path === undefined) throw new Error(`Cannot limit "${group}": the machine has no "${controller}" controller`);
    writeFileSync(path, value);
  };

  return {
    version,
    missing: table.needed.filter((controller) => !roots.has(controller)),
    swapAccounting: table.swapAccounting((controller) => roots.get(controller)),
    cpuMeter: (group) => openMeter(pathOf(group, table.cpuNs.controller, table.cpuNs.file), table.cpuNs),
    memoryBytes: (group) => reading(group, table.memoryBytes),
    inactiveFileBytes: (group) => reading(group, table.inactiveFileBytes),
    memoryLimitBytes: (group) => reading(group, table.memoryLimitBytes),
    oomKills: (group) => reading(group, table.oomKills),
    pids: (group) => reading(group, table.pids),
    pidsRefused: (group) => reading(group, table.pidsRefused),
    processes: (group) => processesIn(directories, group),
    setLimits: (group, limits) =>
      table.writes(limits, reading(group, table.memoryLimitBytes)).forEach(({ controller, file, value, optional }) => {
        if (optional && readIfThere(pathOf(group, controller, file) ?? "") === undefined) return;
        write(group, controller, file, value);
      }),
    killAll: (group) => killAll(table, roots, directories, group),
    list: (parent) => [...new Set(directories.flatMap((root) => groupsIn(join(root, parent))))].sort(),
    remove: (group, signal) => remove(directories, group, signal),
    quickenMoves: () => moveNobody(roots.get("pids")),
  };
}

type Hierarchies = { version: CgroupVersion; roots: Map<string, string>; directories: string[] };

function findHierarchies(mountinfo: string): Hierarchies {
  const mounts = parseMountinfo(mountinfo);
  const unified = mounts.find((mount) => mount.type === "cgroup2")?.target;
  const roots = new Map<string, string>();
  for (const mount of mounts) {
    if (mount.type !== "cgroup") continue;
    for (const controller of mount.superOptions) if (!roots.has(controller)) roots.set(controller, mount.target);
  }
  const hasControllers = ["cpu", "memory", "pids"].some((controller) => roots.has(controller));
  const directories = [...new Set([...roots.values(), ...(unified === undefined ? [] : [unified])])];
  if (hasControllers) return { version: unified === undefined ? "v1" : "hybrid", roots, directories };
  if (unified === undefined) {
    throw new Error("Cannot limit sandboxes: no cgroup file system is mounted. Mount cgroup2 at /sys/fs/cgroup");
  }
  const offered = (readIfThere(join(unified, "cgroup.controllers")) ?? "").split(/\s+/).filter(Boolean);
  // The core (kill, freeze) is no controller and always there.
  const controllers = new Map(["core", ...offered].map((name) => [name, unified]));
  return { version: "v2", roots: controllers, directories };
}

function processesIn(directories: readonly string[], group: string): number[] {
  const found = new Set<number>();
  const visit = (directory: string) => {
    for (const pid of (readIfThere(join(directory, "cgroup.procs")) ?? "").split("\n")) if (pid) found.add(Number(pid));
    for (const child of groupsIn(directory)) visit(join(directory, child));
  };
  for (const root of directories) visit(join(root, group));
  return [...found];
}

function killAll(table: CgroupTable, roots: Map<string, string>, directories: readonly string[], group: string): void {
  const set = (step: { controller: string; file: string; value: string }): boolean => {
    const root = roots.get(step.controller);
    return root !== undefined && writeIfThere(join(root, group, step.file), step.value);
  };
  if (table.kill && set(table.kill)) return;
  // Frozen processes cannot fork while the list is read; the signal is delivered when they thaw.
  set(table.freeze);
  try {
    processesIn(directories, group).forEach(kill);
  } finally {
    set(table.thaw);
  }
}

async function remove(directories: readonly string[], group: string, signal?: AbortSignal): Promise<void> {
  // Processes leave a group a moment after they are seen dead; then waiting is for something unusual.
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
    if (directories.map((root) => removeTree(join(root, group))).every(Boolean)) return;
    if (signal?.aborted) {
      const pids = processesIn(directories, group).join(", ");
      throw new Error(`Cannot remove the group "${group}": processes ${pids || "unknown"} are still in it`, {
        cause: signal.reason,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/** False when something in it is busy. */
function removeTree(directory: string): boolean {
  if (!groupsIn(directory).every((child) => removeTree(join(directory, child)))) return false;
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return true;
    if (code === "EBUSY" || code === "ENOTEMPTY") return false;
    throw error;
  }
}

/** Moves this process to where it is. */
async function moveNobody(root: string | undefined): Promise<void> {
  if (root === undefined) return;
  try {
    const lines = (await readFile("/proc/self/cgroup", "utf8")).trimEnd().split("\n");
    const places = lines.map((line) => /^(\d+):([^:]*):(.*)$/.exec(line));
    const own =
      places.find((place) => place?.[2]?.split(",").includes("pids")) ?? places.find((place) => place?.[1] === "0");
    if (own) await writeFile(join(root, own[3]!, "cgroup.procs"), "0", { flag: "r+" });
  } catch {
    // another namespace's root, or read-only: nothing depends on it
  }
}

function groupsIn(directory: string): string[] {
  try {
    const entries = readdirSync(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

/** Longer than all that is read again and again: "cpu.stat" has some 300 bytes. */
const meterBuffer = Buffer.alloc(4_096);

function openMeter(path: string | undefined, { parse }: Reading): CpuMeter {
  let fd: number | undefined;
  let isClosed = path === undefined;
  return {
    readNs() {
      if (isClosed) return undefined;
      try {
        fd ??= openSync(path!, "r");
        return parse(meterBuffer.toString("latin1", 0, readSync(fd, meterBuffer, 0, meterBuffer.length, 0)));
      } catch (error) {
        if (isGone(error)) return undefined;
        throw error;
      }
    },
    close() {
      isClosed = true;
      if (fd !== undefined) closeSync(fd);
      fd = undefined;
    },
  };
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** Never makes the file: in a cgroup that fails, in a fixture it would hide a wrong name. */
function writeIfThere(path: string, value: string): boolean {
  try {
    writeFileSync(path, value, { flag: "r+" });
    return true;
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}

/** ENODEV: the group was removed between open and read. */
function isGone(error: unknown): boolean {
  return ["ENOENT", "ENODEV", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
}
