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
import type { WarmPool } from "./warm-pool.ts";

/** An agent that has been idle answers within a millisecond; a cold start takes less time than waiting for longer. */
const answerLimitMs = 1_000;

/** A warm run that has become a sandbox's, and the sandbox's row, which has the run's key from now on. */
export type Claimed = { record: SandboxRecord; started: StartedRun };

/** A warm run for the sandbox with this key, when it may have one and there is one: it has the run's key from now on. */
export function claimWarm(machines: Machines, warm: WarmPool, key: string): Claimed | undefined {
  const record = machines.records.findByKey(key);
  const started = record && warm.take(record);
  if (!started) return undefined;
  try {
    return { record: claimRow(machines, record, started.row), started };
  } catch (error) {
    warm.adopt(started); // nothing has changed
    machines.log.warn({ run: started.row.id, error: (error as Error).message }, "cannot claim a warm run");
    return undefined;
  }
}

/** The claim itself, one transaction. */
function claimRow({ records, journal }: Machines, sandbox: SandboxRecord, row: RunRecord): SandboxRecord {
  const { key } = sandbox;
  const claimed = { now: Date.now(), waitedMs: row.process ? ageMs(row.process) : 0 };
  const record = records.claimRun(row, sandbox, claimed);
  journal.rekey(key, record.key);
  return record;
}

/** Undefined when the warm run is not good for it: then it is gone, and the sandbox is started as any other. */
export async function furnishClaimed(machines: Machines, claimed: Claimed): Promise<StartedRun | undefined> {
  try {
    return await furnishRun(machines, claimed);
  } catch (error) {
    const words = (error as Error).message;
    machines.log.warn({ run: claimed.started.row.id, error: words }, "cannot use a warm run: a cold start follows");
    return undefined;
  }
}

/**
 * Gives a claimed run everything by which a sandbox differs from the next: limits, quota, host name, `hosts`; and asks its
 * agent whether it lives. When one of these fails the run is ended and given back whole, and this throws; the disk, on
 * which nobody has written, stays for the sandbox's next run.
 */
async function furnishRun(machines: Machines, { record: sandbox, started }: Claimed): Promise<StartedRun> {
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
