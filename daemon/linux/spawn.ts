import { accessSync, constants } from "node:fs";
import { constants as os } from "node:os";
import { delimiter, join } from "node:path";
import { libc, nameOfErrno } from "./libc.ts";

export type SpawnOptions = {
  /** Descriptors that become 0, 1, 2, … of the program. Everything else of ours is closed to it. */
  stdio: readonly number[];
  /** Its whole environment; PATH finds the program. */
  env: Record<string, string>;
  cwd?: string;
  /** A session of its own: what a terminal sends to us does not reach it. */
  ownSession?: boolean;
  /** Ends it with SIGKILL. */
  signal?: AbortSignal;
};

export type Ending = { exitCode: number | null; signal: NodeJS.Signals | null };

/**
 * Starts a host program, born in the network namespace that this thread is in, and tells how it ends. Throws an Error with `code`
 * when it cannot be started, and the signal's reason when that came first.
 *
 * Node's own spawn forks: it copies the page tables of the whole daemon and stands still for 2 to 5 ms meanwhile, the
 * longer the larger the daemon is. posix_spawn(3) shares the memory until the program runs: 0.5 ms at any size.
 */
export function spawnProgram(file: string, args: readonly string[], options: SpawnOptions): Promise<Ending> {
  options.signal?.throwIfAborted();
  const path = findProgram(file, options.env["PATH"] ?? "");
  const environment = Object.entries(options.env).map(([name, value]) => `${name}=${value}`);
  const actions = Buffer.alloc(fileActionsBytes);
  const attributes = Buffer.alloc(attributesBytes);
  const pid: [number] = [0];
  calls.initActions(actions);
  calls.initAttributes(attributes);
  try {
    options.stdio.forEach((fd, index) => check(calls.addDup2(actions, fd, index), file));
    // what we inherited ourselves without close-on-exec is none of its business either
    check(calls.addCloseFrom(actions, options.stdio.length), file);
    if (options.cwd !== undefined) check(calls.addChdir(actions, options.cwd), file);
    check(calls.setFlags(attributes, freshSignals | (options.ownSession === true ? newSession : 0)), file);
    check(calls.setDefaults(attributes, allSignals), file);
    check(calls.setMask(attributes, noSignals), file);
    check(calls.spawn(pid, path, actions, attributes, [file, ...args, null], [...environment, null]), file);
  } finally {
    calls.destroyActions(actions);
    calls.destroyAttributes(attributes);
  }
  return endOf(pid[0], options.signal);
}

function check(errno: number, file: string): void {
  if (errno === 0) return;
  const code = nameOfErrno(errno);
  throw Object.assign(new Error(`spawn ${file} ${code}`), { code, errno: -errno });
}

/** Where `file` lies; a path that is not there when it is in no directory, so that the kernel says ENOENT. */
function findProgram(file: string, searched: string): string {
  if (file.includes("/")) return file;
  for (const dir of searched.split(delimiter)) {
    const path = join(dir, file);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // not in this one
    }
  }
  return `/nonexistent/${file}`;
}

/** Programs that run, by pid: nobody but us waits for them, so their pids cannot be given to others meanwhile. */
const running = new Map<number, (ending: Ending) => void>();
let looking: NodeJS.Timeout | undefined;

async function endOf(pid: number, signal: AbortSignal | undefined): Promise<Ending> {
  const kill = () => void process.kill(pid, "SIGKILL");
  signal?.addEventListener("abort", kill, { once: true });
  try {
    return await new Promise<Ending>((resolve) => {
      running.set(pid, resolve);
      watch();
    });
  } finally {
    signal?.removeEventListener("abort", kill);
  }
}

/** SIGCHLD says that some child has ended. The timer keeps this process alive while it waits, as a child of Node's does. */
function watch(): void {
  if (looking) return;
  looking = setInterval(reap, lookMs);
  process.on("SIGCHLD", reap);
  reap();
}

const lookMs = 100;

function reap(): void {
  for (const [pid, resolve] of running) {
    const status: [number] = [0];
    if (calls.waitpid(pid, status, WNOHANG) === 0) continue;
    running.delete(pid);
    resolve(toEnding(status[0]));
  }
  if (running.size > 0) return;
  clearInterval(looking);
  looking = undefined;
  process.off("SIGCHLD", reap);
}

/** See wait(2): the lowest seven bits are the signal, the next byte the exit code. */
function toEnding(status: number): Ending {
  const number = status & 0x7f;
  if (number === 0) return { exitCode: (status >> 8) & 0xff, signal: null };
  const names = Object.entries(os.signals) as [NodeJS.Signals, number][];
  return { exitCode: null, signal: names.find(([, value]) => value === number)?.[0] ?? "SIGKILL" };
}

type Attributes = Buffer;
type Actions = Buffer;
const calls = {
  spawn: libc.func(
    "int posix_spawn(_Out_ int *pid, const char *path, uint8_t *actions, uint8_t *attributes, const char **argv, const char **env)",
  ) as (pid: [number], path: string, a: Actions, t: Attributes, argv: Words, env: Words) => number,
  initActions: libc.func("int posix_spawn_file_actions_init(uint8_t *actions)") as (a: Actions) => number,
  addDup2: libc.func("int posix_spawn_file_actions_adddup2(uint8_t *actions, int from, int to)") as Dup2,
  addCloseFrom: libc.func("int posix_spawn_file_actions_addclosefrom_np(uint8_t *actions, int from)") as CloseFrom,
  addChdir: libc.func("int posix_spawn_file_actions_addchdir_np(uint8_t *actions, const char *path)") as Chdir,
  destroyActions: libc.func("int posix_spawn_file_actions_destroy(uint8_t *actions)") as (a: Actions) => number,
  initAttributes: libc.func("int posix_spawnattr_init(uint8_t *attributes)") as (t: Attributes) => number,
  setFlags: libc.func("int posix_spawnattr_setflags(uint8_t *attributes, short flags)") as SetFlags,
  setDefaults: libc.func("int posix_spawnattr_setsigdefault(uint8_t *attributes, const uint8_t *set)") as SetSignals,
  setMask: libc.func("int posix_spawnattr_setsigmask(uint8_t *attributes, const uint8_t *set)") as SetSignals,
  destroyAttributes: libc.func("int posix_spawnattr_destroy(uint8_t *attributes)") as (t: Attributes) => number,
  waitpid: libc.func("int waitpid(int pid, _Out_ int *status, int options)") as Waitpid,
};
type Words = (string | null)[];
type Dup2 = (actions: Actions, from: number, to: number) => number;
type CloseFrom = (actions: Actions, from: number) => number;
type Chdir = (actions: Actions, path: string) => number;
type SetFlags = (attributes: Attributes, flags: number) => number;
type SetSignals = (attributes: Attributes, set: Buffer) => number;
type Waitpid = (pid: number, status: [number], options: number) => number;

/** More than posix_spawn_file_actions_t, posix_spawnattr_t and sigset_t have in glibc (80, 336, 128) and musl. */
const fileActionsBytes = 256;
const attributesBytes = 512;
const signalSetBytes = 128;

/** Node ignores SIGPIPE, and an ignored signal stays so in a program: `| head` would never end what writes to it. */
const freshSignals = 0x04 | 0x08; // POSIX_SPAWN_SETSIGDEF, POSIX_SPAWN_SETSIGMASK
const newSession = 0x80; // POSIX_SPAWN_SETSID
const allSignals = Buffer.alloc(signalSetBytes, 0xff);
const noSignals = Buffer.alloc(signalSetBytes);
const WNOHANG = 1;
