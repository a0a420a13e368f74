import { AgentHello } from "../../protocol/agent.ts";
import { setHostName } from "../linux/host-name.ts";
import { ageMs, throughProcess } from "../linux/process.ts";
import { resizeTmpfs } from "../linux/tmpfs-size.ts";
import { slotAt } from "../network/slot.ts";
import { groupLimitsOf } from "../runtime/spec.ts";
import { sharedMemoryOf } from "../runtime/spec-mounts.ts";
import { diskBytesOf, runLimitsOf } from "./config.ts";
import { writeEtc } from "./etc.ts";
import { giveBack } from "./give-back.ts";
import { groupOf, type Machines } from "./machines.ts";
import { runPaths } from "./paths.ts";
import type { RunRecord, SandboxRecord } from "./record.ts";
import { all, type StartedRun, tellStart } from "./start.ts";

/** An agent that has been idle answers within a millisecond; a cold start takes less time than waiting for longer. */
const answerLimitMs = 1_000;

/** The claim itself, one transaction: gives the sandbox's row, which has the run's key from now on. */
export function claimRow({ records, journal }: Machines, sandbox: SandboxRecord, row: RunRecord): SandboxRecord {
  const { key } = sandbox;
  const claimed = { now: Date.now(), waitedMs: row.process ? ageMs(row.process) : 0 };
  const record = records.claimRun(row, sandbox, claimed);
  journal.rekey(key, record.key);
  return record;
}

/**
 * Gives a claimed run everything by which a sandbox differs from the next: limits, quota, host name, `hosts`; and asks its
 * agent whether it lives. When one of these fails the run is ended and given back whole, and this throws; the disk, on
 * which nobody has written, stays for the sandbox's next run.
 */
export async function furnishRun(machines: Machines, sandbox: SandboxRecord, started: StartedRun): Promise<StartedRun> {
  const { cgroups, config, disks, records } = machines;
  const { row, link } = started;
  await using undo = new AsyncDisposableStack();
  undo.defer(async () => {
    link.close();
    await giveBack(machines, row, { reason: "start-failed", at: Date.now() });
  });
  const { process, slot } = row;
  if (!process || slot === undefined) throw new Error(`Cannot use the warm run "${row.id}": its row is not whole`);
  const limits = runLimitsOf(sandbox.config);
  cgroups.setLimits(groupOf(machines, row.id), groupLimitsOf(limits));
  throughProcess(process, "ns/uts", (path) => setHostName(path, sandbox.name));
  throughProcess(process, "root", (path) => resizeTmpfs(`${path}/dev/shm`, sharedMemoryOf(limits.memoryBytes)));
  await all([
    disks.setLimit(sandbox.key, diskBytesOf(sandbox.config)),
    writeEtc(runPaths(config.runDir, row.id).etc, sandbox.name, slotAt(config.tag, slot).address),
    // without the claim, recovery would throw the disk away as one that nobody has had
    records.sync(),
    link.call(AgentHello, "/hello", { answerWithinMs: answerLimitMs }),
  ]);
  tellStart(machines, row, () => records.confirmClaim(row));
  row.state = "running";
  undo.move();
  return started;
}
