import { readdir, rm, rmdir } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { SandboxError } from "../../protocol/errors.ts";
import { AgentHello, linkVersion } from "../../protocol/agent.ts";
import { stateOf } from "../linux/process.ts";
import { listMounts, unmount } from "../linux/mount.ts";
import { Link } from "../link/link.ts";
import { keptPathsOf } from "./config.ts";
import { endingOf, giveBack } from "./give-back.ts";
import { groupsOf, type Machines } from "./machines.ts";
import { runPaths } from "./paths.ts";
import type { RunRecord, WarmMake } from "./record.ts";
import type { Sandboxes } from "./sandboxes.ts";
import { describeWarmRun } from "./warm-run.ts";

/** A living agent answers at once; one that is stopped or starved gets this long before its run is ended. */
const helloLimitMs = 10_000;
/** Nobody has anything in a warm run: it is not waited for. */
const warmHelloLimitMs = 1_000;

/**
 * Puts right what an earlier daemon left, wherever it ended: living runs are taken over, everything else that carries
 * our tag is given back, destroys are finished. Called once, before the first request.
 */
export async function recover(machines: Machines, sandboxes: Sandboxes): Promise<void> {
  const { records, network, runtime, config } = machines;
  const rows = records.runs();
  const alive: { row: RunRecord; link: Link }[] = [];
  const dead: RunRecord[] = [];
  // all at once: an agent that does not answer must not keep the others waiting
  const warm = rows.some((row) => row.warm) ? await nowMade(machines) : undefined;
  const links = await Promise.all(
    rows.map(async (row) => (isOfUse(machines, row, warm) ? answeringLink(machines, row) : undefined)),
  );
  for (const [index, row] of rows.entries()) {
    const link = links[index];
    if (link) alive.push({ row, link });
    else dead.push(row);
  }
  const leases = alive.flatMap(({ row }) =>
    row.slot === undefined ? [] : [{ slot: row.slot, run: row.id, names: row.sandboxKey }],
  );
  const keep = new Set(alive.map(({ row }) => row.id));
  await runtime.recover(groupsOf(machines), keep);
  await network.recover(leases);
  for (const row of dead) {
    delete row.slot; // the network has just ended every slot but the leased ones
    const given = giveBackDead(machines, row);
    // a disk may hold millions of files that are to go: only who wants this sandbox waits for that
    if (keepsPaths(machines, row)) sandboxes.adoptEnd(row, given);
    else await given;
  }
  await removeStrays(config.runDir, new Set(rows.map(({ id }) => id)));
  for (const started of alive) sandboxes.adopt(started);
  for (const key of records.garbage()) await sandboxes.clear(key);
  await tellUnknownDisks(machines);
}

async function giveBackDead(machines: Machines, row: RunRecord): Promise<void> {
  const end = { ...endingOf(row), at: Date.now() };
  await giveBack(machines, row, end, row.state === "starting" ? cutOff() : undefined);
  machines.log.info({ run: row.id, state: row.state }, "gave back a run that had ended");
}

function keepsPaths({ records }: Machines, row: RunRecord): boolean {
  const config = records.findByKey(row.sandboxKey)?.config;
  return config !== undefined && keptPathsOf(config) !== undefined;
}

function cutOff(): SandboxError {
  return new SandboxError("SANDBOX_UNAVAILABLE", "Cannot start the sandbox: the daemon ended meanwhile", {
    suggestion: "Try again: a daemon is here now",
  });
}

/** Undefined also when it cannot be told: what is there may be in the way of new runs, never of a daemon's start. */
async function nowMade(machines: Machines): Promise<WarmMake | undefined> {
  try {
    return await describeWarmRun(machines);
  } catch (error) {
    machines.log.warn({ error: (error as Error).message }, "cannot make warm runs: those that wait are ended");
    return undefined;
  }
}

/** Its sandbox is not destroyed; when it has none, it is what a warm run would be now. */
function isOfUse({ records, config }: Machines, row: RunRecord, warm: WarmMake | undefined): boolean {
  if (!row.warm) return records.findByKey(row.sandboxKey) !== undefined;
  return config.warmPool > 0 && isDeepStrictEqual(row.warm, warm);
}

/** The link of a run that is to go on: it was running, its process lives, and its agent answers in our version. */
async function answeringLink({ config, log }: Machines, row: RunRecord): Promise<Link | undefined> {
  if (row.state !== "running" || !row.process || stateOf(row.process) !== "alive") return undefined;
  const link = new Link(runPaths(config.runDir, row.id).link);
  try {
    const hello = await link.call(AgentHello, "/hello", { answerWithinMs: row.warm ? warmHelloLimitMs : helloLimitMs });
    if (hello.link === linkVersion) return link;
    log.warn({ run: row.id, link: hello.link }, "an agent of another version: its run is put to sleep");
  } catch (error) {
    log.warn({ run: row.id, error: (error as Error).message }, "an agent does not answer: its run is ended");
  }
  link.close();
  return undefined;
}

/** Run directories that no row names: their rows went last, so only empty mount points can be left, but mounts are looked for. */
async function removeStrays(runDir: string, keep: ReadonlySet<string>): Promise<void> {
  for (const entry of await readdir(runDir, { withFileTypes: true })) {
    if (!entry.isDirectory() || !/^[0-9a-f]{12}$/.test(entry.name) || keep.has(entry.name)) continue;
    const paths = runPaths(runDir, entry.name);
    for (const mount of listMounts(paths.dir).reverse()) await unmount(mount.target, AbortSignal.timeout(5_000));
    for (const mountPoint of [paths.root, paths.link]) await rmdir(mountPoint).catch(() => {}); // not there
    for (const own of [paths.etc, paths.bundle]) await rm(own, { recursive: true, force: true });
    await rmdir(paths.dir);
  }
}

/** A disk whose sandbox has no row can only come from lost records: it may be somebody's work, so it is told and kept. */
async function tellUnknownDisks({ disks, records, log }: Machines): Promise<void> {
  const warm = new Set(records.runs().flatMap((row) => (row.warm ? [row.sandboxKey] : [])));
  for (const id of await disks.list())
    if (!records.findByKey(id) && !warm.has(id)) log.warn({ disk: id }, "a disk has no sandbox; it is kept");
}
