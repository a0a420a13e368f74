import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { gatewayUid } from "../../../daemon/network/address.ts";
import { snapshotHost } from "../../support/leaks.ts";
import { until } from "../../support/until.ts";
import type { SteppedDaemon } from "./stepped-daemon.ts";

export type Rows = {
  sandboxes: { name: string; key: string }[];
  runs: {
    id: string;
    sandbox_key: string;
    number: number;
    state: string;
    slot: number | null;
    pid: number | null;
    warm: string | null;
  }[];
  /** Numbers of the journal's lines, of how many there ever were. */
  journal: { lines: number; last: number };
  /** The starts and ends that the journal tells, in its order; no run was made for a start that failed. */
  lives: { sandbox_key: string; run: number; type: "run.start" | "run.end" }[];
};

/** What the records say now, read beside the daemon. */
export function readRows(dataDir: string): Rows {
  const db = new DatabaseSync(join(dataDir, "state.db"), { readOnly: true, timeout: 5_000 });
  try {
    const all = (sql: string) => db.prepare(sql).all() as never;
    return {
      sandboxes: all("SELECT name, key FROM sandboxes ORDER BY name"),
      runs: all("SELECT id, sandbox_key, number, state, slot, pid, warm FROM runs"),
      journal: db.prepare("SELECT count(*) AS lines, coalesce(max(seq), 0) AS last FROM journal").get() as never,
      lives: all(
        `SELECT sandbox_key, run, type FROM journal WHERE type IN ('run.start', 'run.end')
         AND coalesce(data ->> 'reason', '') <> 'start-failed' ORDER BY seq`,
      ),
    };
  } finally {
    db.close();
  }
}

/** Ready slots: what a daemon keeps beside those of its runs. */
const readySlots = 4;

/**
 * Fails unless this machine has exactly what the records of a daemon that runs say, and each run in them lives: nothing of
 * a run that is gone, nothing missing of one that is there. What is on its way out is waited for.
 */
export async function assertHostIsAsRecorded(daemon: SteppedDaemon): Promise<void> {
  let differences: string[] = [];
  const agree = async () => {
    differences = await compare(daemon);
    return differences.length === 0;
  };
  await until("the host is as recorded", agree).catch(() => {});
  assert.deepEqual(differences, [], "the host differs from what is recorded");
}

async function compare({ dataDir, pid }: SteppedDaemon): Promise<string[]> {
  const rows = readRows(dataDir);
  const { sandboxes, runs } = rows;
  const { tag, things } = await snapshotHost(dataDir);
  const runDir = `/run/atoll/${tag}`;
  const keys = [...things.keys()];
  const of = (kind: string) =>
    keys.filter((key) => key.startsWith(`${kind} `)).map((key) => key.slice(kind.length + 1));
  const mounts = of("mount").map((key) => key.replace(/^\d+ /, ""));
  const slots = of("netns").filter((name) => name !== `a${tag}-hub`);
  const leased = runs.map(({ slot }) => `a${tag}-${slot}`);
  const groups = new Set(of("group").map((path) => path.replace(/^.*\/atoll-\w{6}\/?/, "")));
  const live = runs.map(({ id }) => id);
  const own = new Set(["api.sock", "gateway", "gateway.cjs", "runtime", ...live]);
  const waiting = runs.flatMap(({ warm, sandbox_key: key }) => (warm === null ? [] : [key]));
  const known = new Set([...sandboxes.map(({ key }) => key), ...waiting]);
  return [
    ...runs.filter(({ state }) => state !== "running").map(({ id, state }) => `the run ${id} is ${state}`),
    ...untrueLives(rows),
    ...differ("mount", mounts, [
      ...live.flatMap((id) => [`${runDir}/${id}/root`, `${runDir}/${id}/link`]),
      `${dataDir}/pool`,
    ]),
    ...differ(
      "loop device",
      of("loop").map((key) => key.replace(/^\S+ /, "")),
      [`${dataDir}/pool.btrfs`],
    ),
    ...leased.filter((name) => !slots.includes(name)).map((name) => `no network namespace ${name}`),
    ...(slots.length > leased.length + readySlots
      ? [`${slots.length} network namespaces for ${leased.length} runs`]
      : []),
    ...differ(
      "group of",
      [...groups].filter((name) => name !== ""),
      live,
    ),
    ...differ("entry of the run directory", readdirSync(runDir), [...own]),
    ...differ("run of the runtime", readdirSync(join(runDir, "runtime")), live),
    ...differ("file of the gateway", readdirSync(join(runDir, "gateway")), [
      "control.sock",
      "process.json",
      "words.log",
    ]),
    ...surplus("disk", readdirSync(join(dataDir, "pool/disks")), known),
    ...surplus("unfinished disk", readdirSync(join(dataDir, "pool/new")), new Set()),
    ...surplus(
      "table of names",
      readdirSync(join(dataDir, "gateway/names")).map((name) => name.replace(/\..*/, "")),
      known,
    ),
    ...surplus("entry of the data directory", readdirSync(dataDir), dataEntries),
    ...strangers(of("process"), pid, gatewayUid(tag), new Set(live)),
  ];
}

const dataEntries = new Set([
  ...["connection.json", "daemon.lock", "gateway", "pool", "pool.btrfs", "pool.lock"],
  ...["state.db", "state.db-shm", "state.db-wal"],
]);

/** Each start and each end is told once, the end after the start, and what is not ended runs. */
function untrueLives({ lives, runs }: Rows): string[] {
  const open = new Set<string>();
  const wrong = lives.flatMap(({ sandbox_key: key, run, type }) => {
    const life = `${key}'s run ${run}`;
    const isStart = type === "run.start";
    if (open.has(life) === isStart) return [`the journal's ${type} of ${life} comes ${isStart ? "twice" : "alone"}`];
    if (isStart) open.add(life);
    else open.delete(life);
    return [];
  });
  const running = runs.filter(({ warm }) => warm === null).map((row) => `${row.sandbox_key}'s run ${row.number}`);
  return [...wrong, ...differ("life in the journal", [...open], running)];
}

function differ(what: string, found: string[], wanted: string[]): string[] {
  const missing = wanted.filter((name) => !found.includes(name)).map((name) => `no ${what} ${name}`);
  const twice = found.filter((name, index) => found.indexOf(name) !== index).map((name) => `twice the ${what} ${name}`);
  return [...missing, ...twice, ...surplus(what, found, new Set(wanted))];
}

function surplus(what: string, found: string[], wanted: ReadonlySet<string>): string[] {
  return found.filter((name) => !wanted.has(name)).map((name) => `a left ${what} ${name}`);
}

/** Processes that are neither the daemon's, nor its one gateway, nor in the group of a run; `keys` are "PID START". */
function strangers(keys: string[], daemon: number, gateway: number, live: ReadonlySet<string>): string[] {
  let gateways = 0;
  return keys.flatMap((key) => {
    const pid = Number(key.split(" ")[0]);
    const [status, group, words] = ["status", "cgroup", "cmdline"].map((name) => textOf(`/proc/${pid}/${name}`));
    if (!status || pid === daemon || Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]) === daemon) return [];
    if (Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]) === gateway && ++gateways === 1) return [];
    if ([...live].some((id) => group?.includes(id))) return [];
    return [`a left process ${pid} ${words?.replaceAll("\0", " ")}`];
  });
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it has ended meanwhile
  }
}
