import { constants, lstatSync, openSync } from "node:fs";
import { mkdir, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { Socket } from "node:net";
import { basename, join } from "node:path";
import { SandboxError } from "../../protocol/errors.ts";
import type { Cgroups } from "../linux/cgroup.ts";
import { identify, killAndWait, stateOf } from "../linux/process.ts";
import type { ProcessId } from "../linux/process.ts";
import { hostPath } from "../linux/run.ts";
import { spawnProgram } from "../linux/spawn.ts";
import type { OciSpec } from "./spec.ts";

/**
 * An OCI runtime by command line. The order of one run: `create` -> limits are written -> the process is recorded -> `start` ->
 * its process has ended -> `delete`. Failures carry the runtime's own words.
 */
export type Runtime = {
  /** Whether a run is the host kernel's own: then its host name and what it has mounted can be changed from outside. */
  usesHostKernel: boolean;
  /** Makes everything but runs nothing of ours yet: the process waits at its gate. `bundleDir` gets config.json and the runtime's log.
   * When `signal` ends it half-way, `recover` or the group's `killAll` with `delete` clears what is there. */
  create(id: string, bundleDir: string, spec: OciSpec, signal?: AbortSignal): Promise<ProcessId>;
  /** Opens the gate. Throws when the process ended before. */
  start(id: string, process: ProcessId): Promise<void>;
  /** Gives back what the runtime holds of a run whose processes have ended, its groups included. A run that is not there is deleted. */
  delete(id: string, group: string, signal?: AbortSignal): Promise<void>;
  /** Ids of all runs that the runtime knows, also of those that were never finished. */
  list(): Promise<string[]>;
  /**
   * For a daemon that starts: ends what an earlier one left half made. No run is created meanwhile. Everything in the
   * runtime's directory and below the group `parent` whose id is not in `keep` is killed and deleted; gives those ids.
   */
  recover(parent: string, keep: ReadonlySet<string>, signal?: AbortSignal): Promise<string[]>;
};

export type RuntimeOptions = {
  /** The program: "runc", or the path of another OCI runtime. */
  command: string;
  /** Its directory of states, ours alone: `/run/atoll/<tag>/runc`. */
  root: string;
  cgroups: Cgroups;
};

export async function openRuntime({ command, root, cgroups }: RuntimeOptions): Promise<Runtime> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  const isRunc = basename(command) === "runc";
  const call = (logDir: string, args: readonly string[], signal?: AbortSignal) =>
    callRuntime({ command, root, logDir, args, signal });

  const runtime: Runtime = {
    usesHostKernel: ["runc", "crun", "youki"].includes(basename(command)),

    async create(id, bundleDir, spec, signal) {
      refuseFalseDirectories(spec.root.path);
      const pidFile = join(bundleDir, "pid");
      await writeFile(join(bundleDir, "config.json"), JSON.stringify(spec), { mode: 0o600 });
      // The runtime puts its process into groups about 10 ms after its start.
      void cgroups.quickenMoves();
      await call(bundleDir, ["create", "--bundle", bundleDir, "--pid-file", pidFile, id], signal);
      const pid = Number(await readFile(pidFile, "utf8"));
      const process = identify(pid);
      if (!process) throw new Error(`Cannot create run "${id}": its process ${pid} ended at once`);
      return process;
    },

    async start(id, process) {
      if (!isRunc) return call(root, ["start", id]);
      await openGate(join(root, id, "exec.fifo"), process);
    },

    async delete(id, group, signal) {
      // What `runc delete` would do, in a tenth of its time; it also knows nothing of a run whose creation was cut off.
      if (!isRunc) await call(root, ["delete", id]);
      await cgroups.remove(group, signal);
      await rm(join(root, id), { recursive: true, force: true });
    },

    async list() {
      const entries = await readdir(root, { withFileTypes: true });
      return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
    },

    async recover(parent, keep, signal) {
      await endCreators(root, signal);
      const left = new Set([...(await runtime.list()), ...cgroups.list(parent)].filter((id) => !keep.has(id)));
      for (const id of left) {
        const group = join(parent, id);
        cgroups.killAll(group);
        await runtime.delete(id, group, signal);
      }
      return [...left];
    },
  };
  return runtime;
}

/**
 * runc 1.1 makes /dev/ptmx, the links in /dev and the directories under /sys by plain paths, before it enters the root: where the
 * sandbox has left a symbolic link there, it would write through it wherever the sandbox's uid may, in the shared image too (tried).
 * Only these names themselves are looked at, nothing is opened or followed, and nothing runs on the disk now.
 */
function refuseFalseDirectories(rootDir: string): void {
  for (const name of ["dev", "proc", "sys"]) {
    const found = lstatSync(join(rootDir, name), { throwIfNoEntry: false });
    if (!found || found.isDirectory()) continue;
    throw new SandboxError(
      "SANDBOX_UNAVAILABLE",
      `Cannot start from this disk: "/${name}" is not a directory any more`,
      {
        suggestion: "Something in the sandbox has replaced it. Restore a snapshot, or destroy the sandbox",
      },
    );
  }
}

/**
 * The created process keeps the standard descriptors of the program that made it, so they are /dev/null: a pipe would end
 * with the daemon, a file would be the sandbox's way to fill the host's disk. Words come from the runtime's log.
 */
async function callRuntime({ command, root, logDir, args, signal: stop }: RuntimeCall): Promise<void> {
  stop?.throwIfAborted();
  const log = join(logDir, "runtime.log");
  await rm(log, { force: true });
  const nothing = await open("/dev/null", "r+");
  try {
    const { exitCode, signal } = await spawnProgram(
      command,
      ["--root", root, "--log", log, "--log-format", "json", ...args],
      {
        stdio: [nothing.fd, nothing.fd, nothing.fd],
        env: { PATH: hostPath, LC_ALL: "C" },
        // Ctrl-C for the daemon must not end a run half-way.
        ownSession: true,
        ...(stop && { signal: stop }),
      },
    );
    if (exitCode === 0) return;
    stop?.throwIfAborted();
    const words = lastWords(await readFile(log, "utf8").catch(() => ""));
    throw new Error(
      `Cannot ${args[0]} the run with ${command}: ${words || (signal ? `ended by ${signal}` : `exit ${exitCode}`)}`,
    );
  } finally {
    await nothing.close();
  }
}

type RuntimeCall = {
  command: string;
  root: string;
  logDir: string;
  args: readonly string[];
  signal: AbortSignal | undefined;
};

/** The last error of a runtime's JSON log. */
function lastWords(log: string): string {
  const lines = log.split("\n").flatMap((line) => {
    try {
      const { level, msg } = JSON.parse(line) as { level?: string; msg?: string };
      return level === "error" || level === "fatal" ? [msg ?? ""] : [];
    } catch {
      // Not JSON: a runtime that does not know the option, or a torn line; it may still be what there is to say.
      return line.trim() ? [line.trim()] : [];
    }
  });
  return lines.at(-1) ?? "";
}

/**
 * What `runc start` does, without 5 ms for a program: the created process waits for somebody to read its named pipe, writes one byte
 * and runs the agent. The pipe lies in the runtime's directory, where the sandbox cannot reach. Opened for both directions it never
 * blocks us and never looks ended.
 */
async function openGate(fifo: string, process: ProcessId): Promise<void> {
  const gate = new Socket({ fd: openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK), writable: false });
  const watch = setInterval(() => {
    if (stateOf(process) !== "alive") gate.destroy(new Error(`Cannot start process ${process.pid}: it has ended`));
  }, deathCheckMs);
  try {
    await new Promise((resolve, reject) => void gate.once("data", resolve).once("error", reject));
  } finally {
    clearInterval(watch);
    gate.destroy();
  }
  // The runtime takes a run with its pipe for "created".
  await rm(fifo, { force: true });
}

/** The byte itself comes as an event; that it will never come must be looked for. */
const deathCheckMs = 20;

/** Ends runtimes that a killed daemon left at work in `root`, and waits for their end: they would make what was just cleared. */
async function endCreators(root: string, signal?: AbortSignal): Promise<void> {
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    // A process that left meanwhile, or a kernel thread, has no words.
    const words = (await readFile(`/proc/${name}/cmdline`, "latin1").catch(() => "")).split("\0");
    if (words[words.indexOf("--root") + 1] !== root || !words.includes("create")) continue;
    const creator = identify(Number(name));
    if (creator) await killAndWait(creator, signal);
  }
}
