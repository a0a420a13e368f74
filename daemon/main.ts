import { getRequestListener } from "@hono/node-server";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import packageJson from "../package.json" with { type: "json" };
import { SandboxError } from "../protocol/errors.ts";
import { newToken, Tokens } from "./api/access.ts";
import { makeApp } from "./api/app.ts";
import { serveFront, servePaths } from "./api/front.ts";
import { listenTcp, listenUnix } from "./api/listen.ts";
import { Previews } from "./api/preview.ts";
import { serveTerminals } from "./api/terminal.ts";
import { Tickets } from "./api/ticket.ts";
import { type Config, configFrom } from "./config.ts";
import { openCgroups } from "./linux/cgroup.ts";
import { shareHeap } from "./linux/memory.ts";
import { type Log, openLog } from "./log.ts";
import { openNetwork } from "./network/network.ts";
import { examineHost, requireHost } from "./runtime/host.ts";
import { raiseHostBudgets } from "./runtime/host-budgets.ts";
import { seccompProfileFile } from "./runtime/host-checks.ts";
import { raiseOwnLimits, readHostLimits } from "./runtime/host-limits.ts";
import { openRuntime } from "./runtime/oci.ts";
import { buildSeccomp, type ContainersProfile } from "./runtime/seccomp.ts";
import { capabilities } from "./runtime/spec.ts";
import { Followers } from "./sandbox/followers.ts";
import { guardSpace, watchIdle } from "./sandbox/idle.ts";
import { Journal } from "./sandbox/journal.ts";
import { groupsOf, type Machines } from "./sandbox/machines.ts";
import { Records } from "./sandbox/record.ts";
import { recover } from "./sandbox/recover.ts";
import { Sandboxes } from "./sandbox/sandboxes.ts";
import { PortTable } from "./sandbox/port-table.ts";
import { ServiceTable } from "./sandbox/service-table.ts";
import { openState } from "./state.ts";
import { openDisks } from "./storage/disks.ts";
import { openImages } from "./storage/images.ts";
import { tryLockFile } from "./storage/lock.ts";
import { writeWholeFile } from "./storage/whole-file.ts";

export type Daemon = {
  url: string;
  token: string;
  /** Resolves when the daemon has ended, by `leave` or by a request to go down. */
  ended: Promise<void>;
  /** Ends the daemon; runs and gateway go on, for the next one. */
  leave(): Promise<void>;
};

/**
 * Runs the daemon of one data directory until it is left or told to go down. Throws when another daemon has the
 * directory, or with every gap and its remedy when this machine cannot run sandboxes.
 */
export async function serve(config: Config, log: Log = openLog(config.logLevel)): Promise<Daemon> {
  shareHeap();
  await using opened = new AsyncDisposableStack();
  await makeDirectories(config);
  opened.use(await lockDataDirectory(config.dataDir));
  await removeUnfinished(config);
  requireHost(await examineHost(config));
  for (const { name, before, after } of raiseHostBudgets()) log.info({ name, before, after }, "raised a kernel budget");
  await raiseOwnLimits();

  const db = openState(config.dataDir);
  opened.defer(() => db.close());
  const journal = opened.adopt(new Journal(db), (it) => it.flush());
  const rows = { records: new Records(db), services: new ServiceTable(db), ports: new PortTable(db), journal };
  const machines = await openMachines(config, log, rows, opened);
  const sandboxes = new Sandboxes(machines);
  await recover(machines, sandboxes);
  opened.defer(() => sandboxes.leave());

  const over = new AbortController();
  opened.defer(() => over.abort());
  void watchIdle(machines, sandboxes, over.signal);
  void guardSpace(machines, sandboxes, over.signal);
  void sandboxes.warm.keep(over.signal);

  const tokens = new Tokens(db);
  const token = await chooseToken(config, tokens);
  const ended = Promise.withResolvers<void>();
  const end = once(async (down?: { purge: boolean }) => {
    await using rest = closing;
    if (down) rest.defer(() => takeDown(machines, sandboxes, down.purge));
    log.info({ down }, "going");
  });
  const host = {
    version: packageJson.version,
    startedAt: Date.now(),
    requestDown: (options: { purge: boolean }) => void setTimeout(() => finish(end(options)), 50), // after the answer
  };
  const finish = (work: Promise<void>) => void work.then(ended.resolve, ended.reject);

  const options = { machines, sandboxes, tokens, tickets: new Tickets(), host };
  const names = new Set(["localhost", "127.0.0.1", "::1", config.listen.host, ...config.names]);
  const api = getRequestListener(makeApp({ ...options, names }).fetch);
  const onUnix = getRequestListener(makeApp({ ...options, names: undefined }).fetch);
  opened.use(await listenUnix(onUnix, `${config.runDir}/api.sock`));
  const previews = new Previews(machines, sandboxes, tokens);
  const front = serveFront({
    api: (request, response) => void api(request, response),
    previews,
    names,
    proto: protoOf(config),
  });
  const serving = serveTerminals(front, { ...options, names, log });
  const tcp = opened.use(await listenTcp(serving, config.listen.host, config.listen.port));
  const url = originOf(config.listen.host, tcp.port);
  machines.previewPlaces.apiPort = tcp.port;
  if (config.previewListen) {
    const { host, port } = config.previewListen;
    const paths = opened.use(await listenTcp(servePaths(previews), host, port));
    machines.previewPlaces.pathOrigin = originOf(host, paths.port);
  }
  const connection = JSON.stringify({ url, token, socket: `${config.runDir}/api.sock` });
  await writeWholeFile(config.connectionFile, connection, 0o600);
  log.info({ url, dataDir: config.dataDir, tag: config.tag }, "ready");

  const closing = opened.move();
  return { url, token, ended: ended.promise, leave: () => finishAndWait() };

  async function finishAndWait(): Promise<void> {
    finish(end());
    await ended.promise;
  }
}

function originOf(host: string, port: number): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Whoever puts TLS before us says so by the domain's scheme; names of this machine have none. */
function protoOf({ previewDomain = "" }: Config): (host: string) => string {
  const domain = previewDomain.replace(/^https?:\/\//, "").replace(/:\d+$/, "");
  const scheme = previewDomain.startsWith("http://") || domain.endsWith("localhost") ? "http" : "https";
  return (host) => (domain !== "" && host.replace(/:\d+$/, "").toLowerCase().endsWith(`.${domain}`) ? scheme : "http");
}

async function openMachines(
  config: Config,
  log: Log,
  rows: Pick<Machines, "records" | "services" | "ports" | "journal">,
  opened: AsyncDisposableStack,
): Promise<Machines> {
  const cgroups = openCgroups();
  const { dataDir, tag, runDir, storeDir, hosts, uidBase } = config;
  const extraCaFile = process.env["NODE_EXTRA_CA_CERTS"];
  const profile = JSON.parse(await readFile(seccompProfileFile, "utf8")) as ContainersProfile;
  return {
    version: packageJson.version,
    config,
    log,
    ...rows,
    followers: new Followers(),
    previewPlaces: { apiPort: 0, ...(config.previewDomain !== undefined && { domain: config.previewDomain }) },
    cgroups,
    images: await openImages(storeDir, { uidBase, ...(extraCaFile && { extraCaFile }) }),
    disks: await openDisks({ dataDir, uidBase }),
    runtime: await openRuntime({ command: config.runtime, root: `${runDir}/runtime`, cgroups }),
    network: opened.use(
      await openNetwork({
        tag,
        runDir,
        dataDir,
        storeDir,
        hosts,
        log: (level, fields, message) => log[level](fields, message),
      }),
    ),
    hostLimits: readHostLimits(cgroups),
    seccomp: buildSeccomp(profile, capabilities, process.arch),
    agentFile: await placeAgent(storeDir),
  };
}

/** Everything of this daemon ends: sandboxes sleep, the network, the pool's mount and our directories go. */
async function takeDown(machines: Machines, sandboxes: Sandboxes, purge: boolean): Promise<void> {
  const { config, disks, network, records, cgroups } = machines;
  await sandboxes.stopAll();
  if (purge) for (const { name } of records.list()) await sandboxes.destroy(name);
  await network.end();
  await disks.end();
  await cgroups.remove(groupsOf(machines));
  await rm(config.connectionFile, { force: true });
  await rm(config.runDir, { recursive: true, force: true });
}

/** 0711 all the way: the sandboxes' root passes through on its way to its mounts, and sees nothing. */
async function makeDirectories({ dataDir, runDir }: Config): Promise<void> {
  for (const dir of ["/run/atoll", runDir, dataDir]) {
    await mkdir(dir, { recursive: true, mode: 0o711 });
    await chmod(dir, 0o711);
  }
}

/** Files that a killed daemon was writing. Nobody else writes here while we have the lock. */
async function removeUnfinished({ dataDir, runDir }: Config): Promise<void> {
  for (const dir of [dataDir, runDir]) {
    for (const name of await readdir(dir)) if (/\.(tmp|new)$/.test(name)) await rm(`${dir}/${name}`, { force: true });
  }
}

async function lockDataDirectory(dataDir: string): Promise<AsyncDisposable> {
  const lock = await tryLockFile(`${dataDir}/daemon.lock`);
  if (lock) return lock;
  throw new SandboxError("RESOURCE_BUSY", `Cannot start the daemon: another one uses the data directory "${dataDir}"`, {
    suggestion: "Use that one, end it with atoll down, or choose another directory with --data-dir",
  });
}

/** The token given from outside, else the one that local programs know already, else a new one. */
async function chooseToken(config: Config, tokens: Tokens): Promise<string> {
  const known = config.token ?? (await readConnection(config.connectionFile))?.token;
  if (known !== undefined && tokens.opens(known)) return known;
  const token = config.token ?? newToken();
  tokens.set("local", token);
  return token;
}

async function readConnection(path: string): Promise<{ token: string } | undefined> {
  try {
    return z.object({ token: z.string() }).parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined; // not there after a boot, or not ours: a new token is made
  }
}

/** Sandboxes' root cannot pass a checkout under /root, so the agent lies in the store, under the hash of what it is. */
async function placeAgent(storeDir: string): Promise<string> {
  const built = await readFile(fileURLToPath(new URL("../.build/atoll-agent", import.meta.url)));
  const path = `${storeDir}/bin/atoll-agent-${createHash("sha256").update(built).digest("hex").slice(0, 16)}`;
  await mkdir(`${storeDir}/bin`, { recursive: true, mode: 0o755 });
  // One that is there is whole. Never replaced: another daemon's runtime may be mounting it at this moment, and an unlinked
  // file cannot be mounted.
  if (!existsSync(path)) await writeWholeFile(path, built, 0o755);
  return path;
}

function once<A extends unknown[], T>(work: (...args: A) => Promise<T>): (...args: A) => Promise<T> {
  let under: Promise<T> | undefined;
  return (...args) => (under ??= work(...args));
}

if (import.meta.main) {
  const daemon = await serve(configFrom({}, process.env));
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void daemon.leave());
  await daemon.ended;
  process.exit(0);
}
