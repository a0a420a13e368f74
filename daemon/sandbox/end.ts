import { SignalResult } from "../../protocol/agent.ts";
import type { EndReason } from "../../protocol/sandbox.ts";
import { explainExit } from "../runtime/exit.ts";
import { limitsOf } from "./config.ts";
import { giveBack } from "./give-back.ts";
import type { Machines } from "./machines.ts";
import type { RunEnd, SandboxRecord } from "./record.ts";
import type { Run } from "./run.ts";

/** How long processes may take to end after SIGTERM before the run goes: what is asleep must not have been torn. */
const stopGraceMs = 3_000;

/**
 * Ends a run: its row says so before this returns, then its processes get `signal` and a little time (SIGKILL: none), and all it
 * has is given back. `onEnd` is called when that is done, or could not be; then this throws.
 */
export function endRun(
  machines: Machines,
  run: Run,
  ending: Pick<RunEnd, "reason" | "detail">,
  signal: string,
  onEnd: () => void,
): Promise<void> {
  run.stopping = true;
  machines.records.setStopping(run.row.id, ending);
  return (async () => {
    if (signal !== "SIGKILL") await letProcessesEnd(machines, run, signal);
    const end: RunEnd = { ...ending, at: Date.now() };
    try {
      await giveBack(machines, run.row, end);
    } catch (error) {
      machines.log.error({ run: run.row.id, error: (error as Error).message }, "cannot give back all of a run");
      throw error;
    } finally {
      onEnd();
      run.close(end);
    }
  })();
}

async function letProcessesEnd({ cgroups }: Machines, run: Run, signal: string): Promise<void> {
  const alone = () => cgroups.processes(run.group).length <= 1;
  if (alone()) return;
  const deadlineMs = performance.now() + stopGraceMs;
  try {
    await run.link.call(SignalResult, "/signal", { method: "POST", json: { signal }, answerWithinMs: 1_000 });
  } catch {
    return; // an agent that does not answer has no say in how it ends
  }
  while (!alone() && performance.now() < deadlineMs) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Why an agent is dead though nobody asked: the kernel knows. */
export function whyLost(
  { cgroups }: Machines,
  run: Run,
  record: SandboxRecord | undefined,
): { reason: EndReason; words: string } {
  const oomKills = cgroups.oomKills(run.group);
  return explainExit({
    otherBoot: false,
    ...(oomKills !== undefined && { oomKills }),
    memoryLimitBytes: record ? limitsOf(record.config).memoryMiB * 1024 ** 2 : 0,
  });
}
