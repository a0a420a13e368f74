import { readFileSync } from "node:fs";
import type { Cgroups } from "../linux/cgroup.ts";
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

/** /proc/<pid>/limits has columns: name, soft limit, hard limit, unit. */
function hardLimit(text: string, name: string): number {
  const line = text.split("\n").find((line) => line.startsWith(name));
  const hard = line?.slice(name.length).trim().split(/\s+/)[1];
  if (hard === undefined) throw new Error(`Cannot read the limit "${name}" of this process`);
  return hard === "unlimited" ? Infinity : Number(hard);
}
