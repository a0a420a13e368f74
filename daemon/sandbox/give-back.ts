import { rm, rmdir } from "node:fs/promises";
import type { SandboxError } from "../../protocol/errors.ts";
import { bootId, killAndWait } from "../linux/process.ts";
import { unmount } from "../linux/mount.ts";
import type { Network } from "../network/network.ts";
import { type Slot, slotAt } from "../network/slot.ts";
import { isNoSpace } from "../storage/disks.ts";
import { diskBytesOf, keptPathsOf } from "./config.ts";
import { groupOf, type Machines } from "./machines.ts";
import { runPaths } from "./paths.ts";
import type { RunEnd, RunRecord } from "./record.ts";

/** How long processes may take to leave their group and mounts after SIGKILL: memory and dirty pages go back first. */
const leaveLimitMs = 20_000;

/**
 * Ends a run and gives everything back that its row tells of, in reverse order of taking; the row goes last. It is one
 * function for a stop, a start that failed and recovery, so each step takes "was never there" for done. A step that
 * fails leaves the row: the next recovery tries again. `error`: why a start failed, where nobody else tells its followers.
 */
export async function giveBack(machines: Machines, row: RunRecord, end: RunEnd, error?: SandboxError): Promise<void> {
  const { config, cgroups, runtime, network, records, journal } = machines;
  const signal = AbortSignal.timeout(leaveLimitMs);
  const paths = runPaths(config.runDir, row.id);
  const group = groupOf(machines, row.id);
  if (row.process) await killAndWait(row.process, signal);
  cgroups.killAll(group); // whoever the runtime made without telling us
  await runtime.delete(row.id, group, signal);
  const [root] = await Promise.all([
    unmount(paths.root, signal),
    unmount(paths.link, signal),
    row.slot === undefined ? undefined : giveSlot(network, slotAt(config.tag, row.slot)),
  ]);
  // An overlay that somebody on the host still holds is only detached: mounting its disk a second time would tear it.
  if (root === "lazy")
    throw new Error(`Cannot give back run "${row.id}": its root file system is still in use on the host`);
  await removeDirectories(paths);
  if (row.warm) return endUnclaimed(machines, row, end.at);
  await clearDisk(machines, row);
  const data = { ...end, ...(error && { error: error.toJSON() }) };
  journal.write({ time: end.at, sandboxKey: row.sandboxKey, run: row.number, type: "run.end", data }, () =>
    records.endRun(row, end),
  );
}

/** Why a run ended that is found over: what was decided before, else what its row lets suppose. */
export function endingOf({ state, ending, bootId: boot }: RunRecord): Omit<RunEnd, "at"> {
  if (state === "stopping") return ending ?? { reason: "asked" };
  if (state === "starting") return { reason: "start-failed" };
  return { reason: boot === bootId() ? "agent-lost" : "host-restart" };
}

async function giveSlot(network: Network, slot: Slot): Promise<void> {
  await network.detach(slot);
  await network.giveSlot(slot);
}

/** The mount points must be empty now: they are removed as such, never with what they might hold. */
async function removeDirectories({ dir, root, link, etc, bundle }: ReturnType<typeof runPaths>): Promise<void> {
  for (const mountPoint of [root, link]) await rmdir(mountPoint).catch(ignoreMissing);
  for (const own of [etc, bundle]) await rm(own, { recursive: true, force: true });
  await rmdir(dir).catch(ignoreMissing);
}

/** Nobody has had it: it leaves neither a disk nor a word in the journal. */
async function endUnclaimed({ records, disks, network }: Machines, row: RunRecord, now: number): Promise<void> {
  if (records.findByKey(row.sandboxKey)) throw new Error(`Cannot throw run "${row.id}" away: a sandbox has it`);
  await disks.destroy(row.sandboxKey);
  await network.forgetNames(row.sandboxKey);
  records.endWarmRun(row, now);
}

/** Of the disk only what outlives a run stays. */
async function clearDisk({ records, disks, log }: Machines, { id, sandboxKey }: RunRecord): Promise<void> {
  const config = records.findByKey(sandboxKey)?.config;
  if (config?.persist === "none") await disks.destroy(sandboxKey);
  const kept = config && keptPathsOf(config);
  if (!kept) return;
  try {
    await disks.keepOnly(sandboxKey, kept, { limitBytes: diskBytesOf(config) });
  } catch (error) {
    if (!isNoSpace(error)) throw error;
    // the run is over all the same: the next start does it first, or is refused for want of space
    log.warn({ run: id, error: (error as Error).message }, "cannot remove what a run has left on its disk");
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
