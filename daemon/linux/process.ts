import { closeSync, openSync, readFileSync } from "node:fs";

/** Names one process for ever: pids come again, start times within one boot do not. */
export type ProcessId = {
  bootId: string;
  pid: number;
  /** Clock ticks after boot (field 22 of /proc/<pid>/stat). */
  startTime: number;
};

/** Another boot counts as "gone"; "another" is a different process under the same pid. A zombie does nothing any more. */
export type ProcessState = "alive" | "zombie" | "gone" | "another";

/** The identity of a process that is there now (also as a zombie); undefined when there is none. */
export function identify(pid: number): ProcessId | undefined {
  const stat = readStat(pid);
  return stat && { bootId: bootId(), pid, startTime: stat.startTime };
}

export function stateOf(process: ProcessId): ProcessState {
  if (process.bootId !== bootId()) return "gone";
  const stat = readStat(process.pid);
  if (!stat) return "gone";
  if (stat.startTime !== process.startTime) return "another";
  // the state is that of the first thread: the others may go on without it
  return (stat.state === "Z" || stat.state === "X") && stat.threads <= 1 ? "zombie" : "alive";
}

/** How long a process of this boot has lived, whole milliseconds, by the kernel's clock: nobody sets that one. */
export function ageMs({ startTime }: ProcessId): number {
  return ageAt(readFileSync("/proc/uptime", "latin1"), startTime);
}

/** `uptime`: what the file of that name says, "33021.29 65001.10". Pure. */
export function ageAt(uptime: string, startTime: number): number {
  const uptimeMs = Math.round(Number(uptime.split(" ")[0]) * 1_000); // 33021.29 * 1,000 is no whole number
  return Math.max(0, uptimeMs - startTime * tickMs);
}

/** USER_HZ is 100 on every architecture that Node runs on. */
const tickMs = 10;

/**
 * Ends a process with SIGKILL and waits until it is a zombie or gone; with the PID 1 of a pid namespace everybody in it has
 * ended by then. Nothing is sent to another process that got the pid. Rejects with the signal's reason when that comes first.
 */
export async function killAndWait(target: ProcessId, signal?: AbortSignal): Promise<void> {
  if (stateOf(target) !== "alive") return;
  kill(target.pid);
  // Most are gone within a millisecond; a namespace with much memory to give back takes longer.
  for (let waitMs = 1; stateOf(target) === "alive"; waitMs = Math.min(waitMs * 1.5, 20)) {
    signal?.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/**
 * Gives `work` a path by which `/proc/<pid>/<name>` of exactly this process can be opened: what it leads to stays the same when the
 * process ends and another gets the pid. Throws when it has ended.
 */
export function throughProcess<T>(target: ProcessId, name: string, work: (path: string) => T): T {
  const fd = openSync(`/proc/${target.pid}/${name}`, "r");
  try {
    // Seen alive after the opening, it was this one that was opened.
    if (stateOf(target) !== "alive") throw new Error(`Cannot use "${name}" of process ${target.pid}: it has ended`);
    return work(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}

/** Sends SIGKILL; that there is nobody left to get it is what was wanted. */
export function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** The kernel's random name of this boot. */
export function bootId(): string {
  return (currentBootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim());
}

let currentBootId: string | undefined;

/** State letter and start time; undefined when there is no such process. Parses behind the last parenthesis: a name may hold any byte. */
export function parseStat(text: string): Stat {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", threads: Number(fields[17]), startTime: Number(fields[19]) };
}

type Stat = { state: string; threads: number; startTime: number };

function readStat(pid: number): Stat | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch (error) {
    // ESRCH: the process left between open and read.
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return undefined;
    throw error;
  }
}
