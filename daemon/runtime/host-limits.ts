import { readFileSync } from "node:fs";
import type { Cgroups } from "../linux/cgroup.ts";
import { HostProgramError, run } from "../linux/run.ts";
import type { HostLimits } from "./spec.ts";

/** What this process may pass on to a run. */
export function readHostLimits(cgroups: Cgroups, processDir = "/proc/self"): HostLimits {
  const limits = readFileSync(`${processDir}/limits`, "utf8");
  return {
    openFilesHard: hardLimit(limits, "Max open files"),
    lockedBytesHard: hardLimit(limits, "Max locked memory"),
    oomScoreAdj: Number(readFileSync(`${processDir}/oom_score_adj`, "utf8")),
    swapAccounting: cgroups.swapAccounting,
  };
}

/**
 * Raises this process's own limits as far as it may; for the daemon, before the first run. A user namespace keeps the limits of the
 * process that made it as the bound for *all* namespaces of that owner together, so ours are shared by every sandbox.
 */
export async function raiseOwnLimits(pid = process.pid): Promise<void> {
  for (const [resource, wanted] of Object.entries(wantedLimits)) {
    const set = (value: string) => run("prlimit", ["--pid", String(pid), `--${resource}=${value}`]);
    try {
      await set(`${wanted}:${wanted}`);
    } catch (error) {
      if (!(error instanceof HostProgramError)) throw error;
      // Without CAP_SYS_RESOURCE the hard limit stays what it is, and the soft one can reach it.
      const hard = (
        await run("prlimit", ["--pid", String(pid), "--noheadings", "--raw", "--output=HARD", `--${resource}`])
      ).trim();
      await set(`${hard}:${hard}`);
    }
  }
}

/** For prlimit(1). A million open files: a thousand sandboxes with their links, streams and previews. */
const wantedLimits = { nofile: "1048576", memlock: "unlimited", msgqueue: "unlimited", sigpending: "unlimited" };

/** /proc/<pid>/limits has columns: name, soft limit, hard limit, unit. */
function hardLimit(text: string, name: string): number {
  const line = text.split("\n").find((line) => line.startsWith(name));
  const hard = line?.slice(name.length).trim().split(/\s+/)[1];
  if (hard === undefined) throw new Error(`Cannot read the limit "${name}" of this process`);
  return hard === "unlimited" ? Infinity : Number(hard);
}
