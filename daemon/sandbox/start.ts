import { mkdir, writeFile } from "node:fs/promises";
import { SandboxError } from "../../protocol/errors.ts";
import { AgentHello, linkVersion } from "../../protocol/agent.ts";
import { mountOverlay, mountTmpfs } from "../linux/mount.ts";
import { bootId, type ProcessId, stateOf } from "../linux/process.ts";
import { limitUserNamespace } from "../linux/userns.ts";
import { Link } from "../link/link.ts";
import type { Slot } from "../network/network.ts";
import { buildSpec } from "../runtime/spec.ts";
import { type Disk, isNoSpace } from "../storage/disks.ts";
import { limitsOf } from "./config.ts";
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
export async function startRun(machines: Machines, sandbox: SandboxRecord, signal: AbortSignal): Promise<StartedRun> {
  const row = machines.records.beginRun(sandbox.key, bootId(), Date.now());
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

async function take(
  machines: Machines,
  sandbox: SandboxRecord,
  row: RunRecord,
  signal: AbortSignal,
): Promise<StartedRun> {
  const { config, network, records, runtime, seccomp, hostLimits, agentFile } = machines;
  const paths = runPaths(config.runDir, row.id);
  const limits = limitsOf(sandbox.config);
  const [slot, caFile] = await all([takeSlot(machines, row), makeRoot(machines, sandbox, paths)]);
  await writeEtc(paths.etc, sandbox.name, slot.address);

  const spec = buildSpec({
    rootDir: paths.root,
    linkDir: paths.link,
    etcDir: paths.etc,
    agentFile,
    agentArgs: [],
    caFile,
    hostname: sandbox.name,
    netnsFile: slot.netnsPath,
    cgroup: groupOf(machines, row.id),
    uidBase: config.uidBase,
    limits: {
      vcpu: limits.vcpu,
      cpuBurst: limits.cpuBurst,
      memoryBytes: limits.memoryMiB * 1024 ** 2,
      pids: limits.pids,
    },
    host: hostLimits,
    seccomp,
  });
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
  records.setRunState(row.id, "running");
  row.state = "running";
  return { row, link };
}

/** A sandbox's part of budgets that the whole host shares. */
const namespaceLimits = { userNamespaces: 0, inotifyInstances: 128, inotifyWatches: 131_072 };

/** Recovery ends every namespace that no row names, so the slot's number may follow it. */
async function takeSlot({ network, records }: Machines, row: RunRecord): Promise<Slot> {
  const slot = await network.takeSlot();
  row.slot = slot.index;
  records.setSlot(row.id, slot.index);
  return slot;
}

/** The root file system and the link directory; gives the file of certificates that is trusted inside. */
async function makeRoot(machines: Machines, sandbox: SandboxRecord, paths: RunPaths): Promise<string> {
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
    mountOverlay({ lower: image.rootDir, upper: disk.upper, work: disk.work, target: paths.root }),
    // the agent's socket and little else: a few names and one page for each
    mountTmpfs({ target: paths.link, sizeBytes: 64 * 1024, inodes: 16, uid: uidBase, gid: uidBase, mode: 0o700 }),
  ]);
  return caFile;
}

async function openDisk({ disks }: Machines, { key, config }: SandboxRecord, image: string): Promise<Disk> {
  const limitBytes = limitsOf(config).diskMB * 1_000_000;
  if (config.persist === "none") await disks.destroy(key);
  if (!(await disks.has(key))) return disks.create(key, { limitBytes, image });
  await disks.setLimit(key, limitBytes);
  return disks.open(key, { image });
}

/** The sandbox's root, who owns none of this, must be able to pass: 0711 all the way. */
async function makeDirectories(paths: RunPaths): Promise<void> {
  await mkdir(paths.dir, { mode: 0o711 });
  await all([paths.root, paths.link, paths.etc].map((dir) => mkdir(dir, { mode: 0o711 })));
  await mkdir(paths.bundle, { mode: 0o700 });
}

/** No search line: a single word must not become a name of the outside. */
async function writeEtc(dir: string, name: string, address: string): Promise<void> {
  const hosts = `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n${address} ${name}\n`;
  const write = (file: string, text: string) => writeFile(`${dir}/${file}`, text, { mode: 0o644 });
  await all([write("hosts", hosts), write("hostname", `${name}\n`), write("resolv.conf", "nameserver 198.18.0.1\n")]);
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

function noSpace(sandbox: SandboxRecord, cause: unknown): SandboxError {
  return new SandboxError("NO_SPACE", `Cannot start sandbox "${sandbox.name}": the disk pool or its own disk is full`, {
    cause,
    suggestion: "Destroy sandboxes that are not needed, or give this one a larger instance",
  });
}

/** Waits for all, also when one fails, so that what is under way is there to be given back; then throws the first failure. */
async function all<T extends readonly unknown[]>(tasks: { [I in keyof T]: Promise<T[I]> }): Promise<T> {
  const results: PromiseSettledResult<unknown>[] = await Promise.allSettled(tasks as readonly Promise<unknown>[]);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as unknown as T;
}
