import { mkdir } from "node:fs/promises";
import { SandboxError } from "../../protocol/errors.ts";
import { AgentHello, linkVersion } from "../../protocol/agent.ts";
import { isReadOnly, mountOverlay, mountTmpfs, type OverlayMount, unmount } from "../linux/mount.ts";
import { bootId, type ProcessId, stateOf } from "../linux/process.ts";
import { limitUserNamespace } from "../linux/userns.ts";
import { Link } from "../link/link.ts";
import type { Slot } from "../network/network.ts";
import { buildSpec, type OciSpec } from "../runtime/spec.ts";
import { type Disk, isNoSpace } from "../storage/disks.ts";
import { diskBytesOf, keptPathsOf, runLimitsOf } from "./config.ts";
import { writeEtc } from "./etc.ts";
import { giveBack } from "./give-back.ts";
import { groupOf, type Machines } from "./machines.ts";
import { type RunPaths, runPaths } from "./paths.ts";
import type { RunRecord, SandboxRecord } from "./record.ts";

/** A run that has just started: its row, and the link on which its agent answered. */
export type StartedRun = { row: RunRecord; link: Link };

/**
 * Starts a run of this sandbox. The row is written before the first resource is taken; when a step fails, everything is
 * given back and the row tells the end. Throws what the step threw, NO_SPACE when a disk is full, START_TIMEOUT when the
 * signal's deadline came first.
 */
export function startRun(machines: Machines, sandbox: SandboxRecord, signal: AbortSignal): Promise<StartedRun> {
  return begin(machines, sandbox, machines.records.beginRun(sandbox.key, bootId(), Date.now()), signal);
}

/** What a run is made for: a sandbox, or nobody yet. */
export type Occupant = Pick<SandboxRecord, "key" | "name" | "image" | "imageDigest" | "config">;

/** As `startRun`, when the row is written. */
export async function begin(
  machines: Machines,
  sandbox: Occupant,
  row: RunRecord,
  signal: AbortSignal,
): Promise<StartedRun> {
  await using undo = new AsyncDisposableStack();
  undo.defer(async () => {
    try {
      await giveBack(machines, row, { reason: "start-failed", at: Date.now() });
    } catch (error) {
      // What failed first is what the caller is told; the row stays, and the next start tries again.
      machines.log.error({ run: row.id, error: (error as Error).message }, "cannot give back all of a failed start");
    }
  });
  try {
    const started = await take(machines, sandbox, row, signal);
    undo.move();
    return started;
  } catch (error) {
    throw isNoSpace(error) ? noSpace(sandbox, error) : error;
  }
}

async function take(machines: Machines, sandbox: Occupant, row: RunRecord, signal: AbortSignal): Promise<StartedRun> {
  const { config, network, records, runtime } = machines;
  const paths = runPaths(config.runDir, row.id);
  const [slot, caFile] = await all([takeSlot(machines, row), makeRoot(machines, sandbox, paths)]);
  await writeEtc(paths.etc, sandbox.name, slot.address);

  const group = groupOf(machines, row.id);
  const spec = specOf(machines, sandbox, { paths, caFile, group, netnsFile: slot.netnsPath });
  signal.throwIfAborted();
  const process = await runtime.create(row.id, paths.bundle, spec, signal);
  row.process = process;
  records.setProcess(row.id, process);
  await all([
    limitUserNamespace(process.pid, namespaceLimits),
    network.attach(slot, { names: sandbox.key, run: row.id }),
  ]);
  await runtime.start(row.id, process);
  const link = new Link(paths.link);
  await greet(link, process, signal);
  if (row.warm) records.setRunning(row.id);
  else tellStart(machines, row, () => records.setRunning(row.id));
  row.state = "running";
  return { row, link };
}

/** From this change of its row on, the run is its sandbox's, and awake. */
export function tellStart({ journal }: Machines, { sandboxKey, number }: RunRecord, change: () => void): void {
  journal.write({ time: Date.now(), sandboxKey, run: number, type: "run.start", data: { run: number } }, change);
}

/** What the runtime makes of all this: whatever a run cannot be given later stands here. */
export function specOf(
  { config, seccomp, hostLimits, agentFile }: Machines,
  sandbox: Occupant,
  place: { paths: RunPaths; caFile: string; netnsFile: string; group: string },
): OciSpec {
  const { paths, caFile, netnsFile, group } = place;
  return buildSpec({
    rootDir: paths.root,
    linkDir: paths.link,
    etcDir: paths.etc,
    agentFile,
    agentArgs: [],
    caFile,
    hostname: sandbox.name,
    netnsFile,
    cgroup: group,
    uidBase: config.uidBase,
    limits: runLimitsOf(sandbox.config),
    host: hostLimits,
    seccomp,
  });
}

/** A sandbox's part of budgets that the whole host shares. */
export const namespaceLimits = { userNamespaces: 0, inotifyInstances: 128, inotifyWatches: 131_072 };

/** Recovery ends every namespace that no row names, so the slot's number may follow it. */
async function takeSlot({ network, records }: Machines, row: RunRecord): Promise<Slot> {
  const slot = await network.takeSlot();
  row.slot = slot.index;
  records.setSlot(row.id, slot.index);
  return slot;
}

/** The root file system and the link directory; gives the file of certificates that is trusted inside. */
async function makeRoot(machines: Machines, sandbox: Occupant, paths: RunPaths): Promise<string> {
  const { config, images } = machines;
  const image = await images.find(sandbox.imageDigest);
  if (!image) {
    throw new SandboxError(
      "IMAGE_NOT_FOUND",
      `Cannot start sandbox "${sandbox.name}": its image ${sandbox.image} (${sandbox.imageDigest}) is not in the store`,
      {
        suggestion: "Put the image back, or destroy the sandbox",
      },
    );
  }
  await makeDirectories(paths);
  const disk = await openDisk(machines, sandbox, image.digest);
  const { uidBase } = config;
  const [caFile] = await all([
    images.caBundle(image),
    mountRoot(machines, sandbox, {
      ...{ lower: image.rootDir, upper: disk.upper, work: disk.work, target: paths.root },
      redirects: keptPathsOf(sandbox.config) === undefined,
    }),
    // the agent's socket and little else: a few names and one page for each
    mountTmpfs({ target: paths.link, sizeBytes: 64 * 1024, inodes: 16, uid: uidBase, gid: uidBase, mode: 0o700 }),
  ]);
  return caFile;
}

/** What overlayfs needs on a disk for being mounted: a directory of its own, made anew each time. */
const mountingBytes = 16 * 1024 * 1024;

/** Where there is no room for that the mount is read-only, and a full disk could never be made emptier: it is given the room. */
async function mountRoot({ disks }: Machines, { key, config }: Occupant, overlay: OverlayMount): Promise<void> {
  await mountOverlay(overlay);
  if (!isReadOnly(overlay.target)) return;
  await unmount(overlay.target);
  await disks.setLimit(key, diskBytesOf(config) + mountingBytes);
  await mountOverlay(overlay);
  await disks.setLimit(key, diskBytesOf(config));
}

async function openDisk({ disks }: Machines, { key, config }: Occupant, image: string): Promise<Disk> {
  const limitBytes = diskBytesOf(config);
  if (config.persist === "none") await disks.destroy(key);
  if (!(await disks.has(key))) return disks.create(key, { limitBytes, image });
  // also what a power failure has brought back, and what the paths named before
  const kept = keptPathsOf(config);
  if (kept) await disks.keepOnly(key, kept, { limitBytes });
  await disks.setLimit(key, limitBytes);
  return disks.open(key, { image });
}

/** The sandbox's root, who owns none of this, must be able to pass: 0711 all the way. */
async function makeDirectories(paths: RunPaths): Promise<void> {
  await mkdir(paths.dir, { mode: 0o711 });
  await all([paths.root, paths.link, paths.etc].map((dir) => mkdir(dir, { mode: 0o711 })));
  await mkdir(paths.bundle, { mode: 0o700 });
}

/** Waits until the agent answers: its first answer is also the proof of its version. */
async function greet(link: Link, process: ProcessId, signal: AbortSignal): Promise<void> {
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 1.5, 50)) {
    try {
      const hello = await link.call(AgentHello, "/hello", { signal, answerWithinMs: 5_000 });
      if (hello.link === linkVersion) return;
      throw new SandboxError(
        "VERSION_MISMATCH",
        `Cannot use the agent: it speaks link version ${hello.link}, not ${linkVersion}`,
      );
    } catch (error) {
      if (signal.aborted) throw startTimeout(signal);
      if (!SandboxError.is(error, "AGENT_UNREACHABLE")) throw error;
      if (stateOf(process) !== "alive") {
        throw new SandboxError("SANDBOX_UNAVAILABLE", "Cannot start the sandbox: its agent ended at once", {
          cause: error,
        });
      }
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

function startTimeout(signal: AbortSignal): unknown {
  const late = signal.reason instanceof Error && signal.reason.name === "TimeoutError";
  return late
    ? new SandboxError("START_TIMEOUT", "Cannot start the sandbox: its agent did not answer in time")
    : signal.reason;
}

function noSpace(sandbox: Occupant, cause: unknown): SandboxError {
  return new SandboxError("NO_SPACE", `Cannot start sandbox "${sandbox.name}": the disk pool or its own disk is full`, {
    cause,
    suggestion: "Destroy sandboxes that are not needed, or give this one a larger instance",
  });
}

/** Waits for all, also when one fails, so that what is under way is there to be given back; then throws the first failure. */
export async function all<T extends readonly unknown[]>(tasks: { [I in keyof T]: Promise<T[I]> }): Promise<T> {
  const results: PromiseSettledResult<unknown>[] = await Promise.allSettled(tasks as readonly Promise<unknown>[]);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as unknown as T;
}
