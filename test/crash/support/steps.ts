/**
 * Loaded into a daemon with `--import`, before its first own module: counts what it does to the world, step by step, and
 * ends it with SIGKILL at the step that a test has chosen. Nothing in the daemon knows of it; what it wraps are Node's own
 * functions and the C library's, by which every program, file, mount, row and request of the daemon goes.
 *
 * In the directory ATOLL_STEPS: `order.json` is what to do, `taken.log` gets the name of each step, `ready` says that the
 * order was read. An order is read at the start, and again at each SIGUSR2.
 */
import childProcess from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import koffi from "koffi";
import { flushCompileCache, syncBuiltinESMExports } from "node:module";
import { DatabaseSync, StatementSync } from "node:sqlite";
import { threadId } from "node:worker_threads";
import type { Order } from "./stepped-daemon.ts";

const directory = process.env["ATOLL_STEPS"] ?? "";
const dataDir = process.env["ATOLL_DATA_DIR"] ?? "";
const tag = createHash("sha256").update(dataDir).digest("hex").slice(0, 6);
const { readFileSync, writeFileSync, writeSync } = fs;
const log = fs.openSync(`${directory}/taken.log`, "a");

let order: Order | undefined;
let seen = new Map<string, number>();

if (threadId === 0) {
  readOrder();
  process.on("SIGUSR2", readOrder);
  process.once("SIGUSR2", () => flushCompileCache()); // SIGKILL would leave the next lives without
  pretend();
  wrapPrograms();
  wrapSystemCalls();
  wrapFiles();
  wrapRows();
  wrapRequests();
  syncBuiltinESMExports();
}

function readOrder(): void {
  seen = new Map();
  order = JSON.parse(readFileSync(`${directory}/order.json`, "utf8")) as Order;
  writeFileSync(`${directory}/ready`, order.id);
}

/** What a test cannot do to the machine: another boot, a shortage of memory, and a clock that was set. */
function pretend(): void {
  const { readFileSync: read } = fs;
  const pretended = (path: unknown): string | undefined => {
    if (path === "/proc/sys/kernel/random/boot_id") return order?.bootId && `${order.bootId}\n`;
    if (path !== "/proc/meminfo" || order?.availableRatio === undefined) return undefined;
    return `MemTotal:       100000000 kB\nMemAvailable:   ${Math.floor(order.availableRatio * 100_000_000)} kB\n`;
  };
  Object.assign(fs, { readFileSync: (path: never, options: never) => pretended(path) ?? read(path, options) });
  const { now } = Date;
  Date.now = () => now() + (order?.clockMs ?? 0);
}

/** A step is about to be taken. Names are the same in every run: what differs from one to the next is left out. */
function step(name: string, program?: number): void {
  if (!order) return;
  const plain = toPlain(name);
  const times = (seen.get(plain) ?? 0) + 1;
  seen.set(plain, times);
  const numbered = times === 1 ? plain : `${plain} (${times})`;
  if (order.tell) writeSync(log, `${numbered}\n`);
  if (numbered !== order.killAt) return;
  const { stopAfterMs } = order;
  const stop = () => {
    if (program !== undefined) process.kill(program, "SIGSTOP");
    die();
  };
  if (stopAfterMs === undefined) die();
  else setTimeout(stop, stopAfterMs);
}

function die(): void {
  process.kill(process.pid, "SIGKILL");
}

function toPlain(name: string): string {
  return name
    .replaceAll(dataDir, "DATA")
    .replaceAll(tag, "TAG")
    .replaceAll(/\s+/g, " ")
    .replaceAll(/[0-9a-f]{12,}/g, "*")
    .replaceAll(/(?<=atoll-doctor-)\w{6}/g, "*")
    .replaceAll(/\d+/g, "N");
}

function wrapPrograms(): void {
  const { spawn } = childProcess;
  const wrapped = (file: string, args: readonly string[], options: childProcess.SpawnOptions) => {
    const name = [file, ...args].join(" ");
    step(name);
    const child = spawn(file, args, options);
    step(`${name}, begun`, child.pid);
    if (args.includes("-batch") && args.includes("-force")) tellLines(child);
    return child;
  };
  Object.assign(childProcess, { spawn: wrapped });
}

type Call = (...args: unknown[]) => unknown;
type NativeCall = Call & { async: Call };

/** Those that change something: what is mounted, what lies on a pool, what a run calls itself, which programs run. */
function wrapSystemCalls(): void {
  const { load } = koffi;
  const wrapped = (...args: Parameters<typeof load>) => {
    const library = load(...args);
    const { func } = library as unknown as { func: (signature: string) => NativeCall };
    const wrappedFunc = (signature: string): NativeCall => {
      const name = /(\w+)\(/.exec(signature)?.[1] ?? "";
      const call = func.call(library, signature);
      if (name === "posix_spawn") return Object.assign(spawning(call), { async: call.async });
      if (!["mount", "umount2", "ioctl", "sethostname", "syscall"].includes(name)) return call;
      const tell = (values: unknown[]) =>
        step([name, ...values.filter((value) => typeof value === "string")].join(" "));
      const async = (...values: unknown[]) => {
        tell(values);
        return call.async(...values);
      };
      const sync = (...values: unknown[]) => {
        tell(values);
        return call(...values);
      };
      return Object.assign(sync, { async });
    };
    return { func: wrappedFunc } as unknown as typeof library;
  };
  Object.assign(koffi, { load: wrapped });
}

/** posix_spawn(&pid, path, actions, attributes, argv, env). */
function spawning(call: Call): Call {
  return (...values) => {
    const [pid, , , , argv] = values as [[number], string, Buffer, Buffer, (string | null)[]];
    const name = argv.slice(0, -1).join(" ");
    step(name);
    const result = call(...values);
    step(`${name}, begun`, pid[0]);
    return result;
  };
}

/** The long-lived `ip`: each batch of its lines is a step. */
function tellLines(child: childProcess.ChildProcess): void {
  const { stdin } = child;
  if (!stdin) return;
  const write = stdin.write.bind(stdin) as (text: string) => boolean;
  Object.assign(stdin, {
    write: (text: string) => {
      step(`ip: ${text.replaceAll(/atoll-\d+\n/g, "")}`);
      return write(text);
    },
  });
}

function wrapFiles(): void {
  const changing = ["mkdir", "writeFile", "rm", "rmdir", "rename", "chmod", "chown", "symlink", "unlink", "truncate"];
  const table = fs as unknown as Record<string, unknown>;
  const promises = fs.promises as unknown as Record<string, unknown>;
  for (const name of [...changing, "copyFile"]) wrap(promises, name);
  for (const name of changing) wrap(table, `${name}Sync`);
  wrap(promises, "open", isWriting);
  tellSyncs(promises);
  wrap(table, "openSync", isWriting);
}

/** What is put on the disk for good, whoever wrote it. */
function tellSyncs(promises: Record<string, unknown>): void {
  const open = promises["open"] as (...args: unknown[]) => Promise<fs.promises.FileHandle>;
  promises["open"] = async (...args: unknown[]) => {
    const handle = await open(...args);
    const datasync = handle.datasync.bind(handle);
    handle.datasync = () => {
      step(`datasync ${String(args[0])}`);
      return datasync();
    };
    return handle;
  };
}

function isWriting(args: unknown[]): boolean {
  const flags = args[1] ?? "r";
  return typeof flags === "number" ? (flags & (fs.constants.O_WRONLY | fs.constants.O_RDWR)) !== 0 : flags !== "r";
}

function wrap(table: Record<string, unknown>, name: string, isStep: (args: unknown[]) => boolean = () => true): void {
  const original = table[name] as (...args: unknown[]) => unknown;
  table[name] = (...args: unknown[]) => {
    const paths = args.slice(0, 2).filter((arg) => typeof arg === "string" && arg.startsWith("/"));
    if (isStep(args)) step(`${name} ${paths.join(" ")}`);
    return original(...args);
  };
}

function wrapRows(): void {
  const { exec } = DatabaseSync.prototype;
  DatabaseSync.prototype.exec = function (this: DatabaseSync, sql: string) {
    step(`sql ${sql}`);
    exec.call(this, sql);
  };
  const { run } = StatementSync.prototype;
  Object.assign(StatementSync.prototype, {
    run(this: StatementSync, ...args: Parameters<typeof run>) {
      step(`sql ${this.sourceSQL}`);
      return run.apply(this, args);
    },
  });
}

/** What is asked of agents and gateway, and their answers before the daemon has seen them. */
function wrapRequests(): void {
  const { request } = http;
  const wrapped = (options: http.RequestOptions, onResponse?: (response: http.IncomingMessage) => void) => {
    const name = `${options.method ?? "GET"} ${(options.path ?? "").replace(/\?.*/, "")}`;
    step(name);
    const outgoing = request(options);
    outgoing.once("response", () => step(`${name}, answered`));
    if (onResponse) outgoing.once("response", onResponse);
    return outgoing;
  };
  Object.assign(http, { request: wrapped });
}
