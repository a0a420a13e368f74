import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { gatewayUid } from "../../daemon/network/address.ts";
import { listMounts } from "../../daemon/linux/mount.ts";
import { run } from "../../daemon/linux/run.ts";
import { until } from "./until.ts";

/** What one daemon has of the host at one moment; other daemons' things are not in it, so tests run side by side. */
export type HostSnapshot = {
  tag: string;
  dataDir: string;
  /** By a name that nothing else ever has: what it is, in words. */
  things: Map<string, string>;
};

/**
 * Looks for everything that carries the tag of the daemon with this data directory: mounts, network namespaces, control
 * groups, loop devices, processes, nft tables of the host, listening unix sockets, and what lies in `/run/atoll/<tag>`.
 * The calling process and its ancestors are not looked at.
 */
export async function snapshotHost(dataDir: string): Promise<HostSnapshot> {
  const whole = resolve(dataDir);
  const tag = createHash("sha256").update(whole).digest("hex").slice(0, 6);
  const marks = { tag, dataDir: whole, runDir: `/run/atoll/${tag}`, group: `atoll-${tag}` };
  const found = [
    ...mounts(marks),
    ...networkNamespaces(marks),
    ...controlGroups(marks),
    ...loopDevices(marks),
    ...processes(marks),
    ...listeningSockets(marks),
    ...filesBelow(marks.runDir),
    ...(await hostTables(marks)),
  ];
  return { tag, dataDir: whole, things: new Map(found) };
}

export type LeakOptions = {
  /** What may be there beside what was there before, by its words: a pool that is kept on purpose. */
  except?: RegExp;
  /** How long what is on its way out may take; default 20 s. */
  limitMs?: number;
};

/** Fails, naming each thing in words, unless the daemon has nothing now that it did not have in `before`. */
export async function assertNothingLeaked(before: HostSnapshot, options: LeakOptions = {}): Promise<void> {
  let leaked: string[] = [];
  const isClean = async () => {
    const { things } = await snapshotHost(before.dataDir);
    leaked = [...things].filter(([key]) => !before.things.has(key)).map(([, words]) => words);
    leaked = leaked.filter((words) => !options.except?.test(words));
    return leaked.length === 0;
  };
  // Processes take a moment to leave after their daemon has ended; what is still there at the limit is told below.
  await until("nothing is left", isClean, options.limitMs).catch(() => {});
  assert.equal(leaked.length, 0, `${leaked.length} things were left behind:\n${leaked.join("\n")}`);
}

type Marks = { tag: string; dataDir: string; runDir: string; group: string };
type Found = [key: string, words: string];

function mounts({ runDir, dataDir }: Marks): Found[] {
  return [runDir, dataDir]
    .flatMap((prefix) => listMounts(prefix))
    .map(({ id, target, type }) => [`mount ${id} ${target}`, `the mount ${target} (${type})`]);
}

function networkNamespaces({ tag }: Marks): Found[] {
  return entries("/run/netns")
    .filter((name) => name.startsWith(`a${tag}-`))
    .map((name) => [`netns ${name}`, `the network namespace ${name}`]);
}

function controlGroups({ group }: Marks): Found[] {
  return listMounts()
    .filter(({ type }) => type === "cgroup" || type === "cgroup2")
    .flatMap(({ target }) => directoriesAt(join(target, group)))
    .map((path) => [`group ${path}`, `the control group ${path} (${populationOf(path)})`]);
}

function directoriesAt(path: string): string[] {
  let inner: string[];
  try {
    inner = readdirSync(path, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
  } catch (error) {
    return ignoreGone(error, []);
  }
  return [path, ...inner.flatMap((name) => directoriesAt(join(path, name)))];
}

function populationOf(group: string): string {
  const pids = textOf(join(group, "cgroup.procs")).split("\n").filter(Boolean);
  return pids.length === 0 ? "empty" : `with the processes ${pids.join(" ")}`;
}

function loopDevices({ dataDir }: Marks): Found[] {
  return entries("/sys/block")
    .filter((name) => name.startsWith("loop"))
    .map((name): Found => [name, textOf(`/sys/block/${name}/loop/backing_file`).trim()])
    .filter(([, file]) => file.startsWith(`${dataDir}/`))
    .map(([name, file]) => [`loop ${name} ${file}`, `the loop device /dev/${name} of ${file}`]);
}

/**
 * A process is the daemon's when its command line, environment, directory, program or control group carries a mark, or
 * when it runs as the daemon's gateway.
 */
function processes({ tag, dataDir, runDir, group }: Marks): Found[] {
  const own = new Set(lineage(process.pid));
  const marks = [dataDir, runDir, group, `a${tag}-`];
  const uid = String(gatewayUid(tag));
  return entries("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && !own.has(pid))
    .flatMap((pid): Found[] => {
      const at = `/proc/${pid}`;
      const said = ["cmdline", "environ", "cgroup"].map((name) => textOf(join(at, name)));
      const shown = [...said, linkOf(join(at, "cwd")), linkOf(join(at, "exe"))].join("\0");
      const status = textOf(join(at, "status"));
      // A zombie has given back everything; when the host's own PID 1 takes it away is not the daemon's doing.
      if (/^State:\s+Z/m.test(status) && /^PPid:\s+1$/m.test(status)) return [];
      const isGateway = /^Uid:\s+(\d+)/m.exec(status)?.[1] === uid;
      if (!isGateway && !marks.some((mark) => isMentioned(shown, mark))) return [];
      const words = said[0]?.replaceAll("\0", " ").trim() || /^Name:\s+(.*)/m.exec(status)?.[1] || "no name any more";
      return [[`process ${pid} ${startOf(pid)}`, `the process ${pid} (${words})`]];
    });
}

/** Whether the mark stands there and does not go on as a longer name: /tmp/a is not /tmp/ab. */
function isMentioned(text: string, mark: string): boolean {
  for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + 1)) {
    if (mark.endsWith("-") || !/[\w.-]/.test(text[at + mark.length] ?? "")) return true;
  }
  return false;
}

function lineage(pid: number): number[] {
  const parent = Number(/^PPid:\s+(\d+)/m.exec(textOf(`/proc/${pid}/status`))?.[1] ?? 0);
  return parent === 0 ? [pid] : [pid, ...lineage(parent)];
}

/** Tells a process from a later one with its pid: field 22 of stat, counted behind the name, which may hold blanks. */
function startOf(pid: number): string {
  const stat = textOf(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}

function listeningSockets({ runDir, dataDir }: Marks): Found[] {
  return textOf("/proc/net/unix")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .flatMap(([, , , flags, , , number, path = ""]): Found[] => {
      // 00010000 is __SO_ACCEPTCON: it listens.
      const ours = path.startsWith(`${runDir}/`) || path.startsWith(`${dataDir}/`);
      return ours && flags === "00010000" ? [[`socket ${number}`, `the listening socket ${path}`]] : [];
    });
}

function filesBelow(path: string): Found[] {
  let inner: string[] = [];
  let kind: string;
  try {
    const stat = lstatSync(path);
    kind = stat.isDirectory() ? "directory" : stat.isSocket() ? "socket" : stat.isSymbolicLink() ? "symlink" : "file";
    // A run's root and link belong to the sandbox; that their mounts are left is told by the mounts.
    if (stat.isDirectory() && !listMounts(path).some(({ target }) => target === path)) inner = readdirSync(path);
  } catch (error) {
    return ignoreGone(error, []);
  }
  return [[`file ${path}`, `the ${kind} ${path}`], ...inner.flatMap((name) => filesBelow(join(path, name)))];
}

async function hostTables({ tag }: Marks): Promise<Found[]> {
  const tables = await run("nft", ["list", "tables"]);
  return tables
    .split("\n")
    .filter((line) => line.endsWith(` atoll_${tag}`))
    .map((line) => [`nft ${line}`, `the nft ${line} of the host`]);
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    return ignoreGone(error, []);
  }
}

/** What is gone, or was never there, says nothing. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    return ignoreGone(error, "");
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch (error) {
    return ignoreGone(error, "");
  }
}

/** Processes and groups vanish while they are looked at: ESRCH, ENODEV and ENOENT are how the kernel says so. */
function ignoreGone<T>(error: unknown, nothing: T): T {
  const { code } = error as NodeJS.ErrnoException;
  if (["ENOENT", "ESRCH", "ENODEV", "EACCES", "ENOTDIR"].includes(code ?? "")) return nothing;
  throw error;
}
