/** Why a run ended, as records, journal and users see it. */
export type ExitReason = "asked" | "idle" | "lifetime" | "memory" | "agent-lost" | "host-restart";

/** What the daemon knows when a run is over. */
export type ExitFacts = {
  /** The daemon's own doing, noted before it sent the signal. */
  ended?: "asked" | "idle" | "lifetime";
  /** Whether the machine has booted since the run began. */
  otherBoot: boolean;
  /** How far the group's oom counter moved since the last reading before the end; undefined when the group was gone by then. */
  oomKills?: number;
  memoryLimitBytes: number;
};

/** The reason and a sentence for people. What we did ourselves counts first, then what the kernel says, then what is left. Pure. */
export function explainExit(facts: ExitFacts): { reason: ExitReason; words: string } {
  if (facts.ended) return { reason: facts.ended, words: endedWords[facts.ended] };
  if (facts.otherBoot) return { reason: "host-restart", words: "The machine was restarted; the disk is kept" };
  if ((facts.oomKills ?? 0) > 0) {
    const limit = formatBytes(facts.memoryLimitBytes);
    return {
      reason: "memory",
      words: `The sandbox ran out of memory (limit ${limit}) and its agent was killed; choose a larger instance`,
    };
  }
  return { reason: "agent-lost", words: "The sandbox's agent ended unexpectedly; the disk is kept" };
}

const endedWords = {
  asked: "Stopped by request",
  idle: "Put to sleep after its idle time",
  lifetime: "Stopped at the end of its maximum lifetime",
};

/** Counters of one group, as two readings see them. */
export type LimitCounters = { oomKills: number; pidsRefused: number };

/** What happened at the limits between two readings, in words; empty when nothing did. Pure. */
export function explainLimits(
  before: LimitCounters,
  now: LimitCounters,
  limits: { memoryBytes: number; pids: number },
): string[] {
  const killed = now.oomKills - before.oomKills;
  const refused = now.pidsRefused - before.pidsRefused;
  return [
    ...(killed > 0
      ? [
          `${count(killed, "process was", "processes were")} killed because the sandbox reached its memory limit of ${formatBytes(limits.memoryBytes)}`,
        ]
      : []),
    ...(refused > 0
      ? [
          `${count(refused, "process was", "processes were")} not started because the sandbox reached its limit of ${limits.pids} processes`,
        ]
      : []),
  ];
}

function count(n: number, one: string, many: string): string {
  return n === 1 ? `One ${one}` : `${n} ${many}`;
}

/** "256 MiB", "1.5 GiB": limits are powers of two. */
function formatBytes(bytes: number): string {
  const mebibytes = bytes / 1024 ** 2;
  return mebibytes >= 1024 ? `${Number((mebibytes / 1024).toFixed(1))} GiB` : `${Number(mebibytes.toFixed(1))} MiB`;
}
