import { closeSync, openSync } from "node:fs";
import { libc, must } from "./libc.ts";

/**
 * Runs `work` with this thread inside the namespace of this kind at `path`. `work` must be synchronous: what it spawns is
 * born in there, what it opens (sockets, /proc/sys/net) belongs there. When the way back fails the process aborts, because
 * a daemon in a namespace of its sandboxes must not go on.
 */
export function inNamespace<T>(kind: keyof typeof flags, path: string, work: () => T): T {
  const home = openSync(`/proc/thread-self/ns/${kind}`, "r");
  try {
    const there = openSync(path, "r");
    try {
      must(setns(there, flags[kind]), `enter the ${kind} namespace ${path}`);
    } finally {
      closeSync(there);
    }
    try {
      return work();
    } finally {
      if (setns(home, flags[kind]) !== 0) process.abort();
    }
  } finally {
    closeSync(home);
  }
}

const setns = libc.func("int setns(int fd, int type)") as (fd: number, type: number) => number;

/** CLONE_NEWNET, CLONE_NEWUTS. */
const flags = { net: 0x4000_0000, uts: 0x0400_0000 } as const;
