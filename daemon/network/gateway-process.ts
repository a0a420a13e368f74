import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { chown, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { GatewayHello } from "../../protocol/gateway.ts";
import { listenUnix, openHubSockets } from "../linux/hub-sockets.ts";
import { identify, killAndWait, stateOf, type ProcessId } from "../linux/process.ts";
import { gatewayAddress, gatewayUid, hubName, netnsPath, proxyPort } from "./address.ts";
import { callGateway } from "./gateway-call.ts";
import { placeGatewayProgram, type GatewayProgram } from "./gateway-program.ts";

/** Where a daemon's gateway lives, and as whom. */
export type GatewayPlace = {
  tag: string;
  uid: number;
  program: GatewayProgram;
  /** The control socket, in a directory that only root may enter. */
  control: string;
  /** Which process it is. */
  record: string;
  /** What it said on its way out. */
  words: string;
  /** Name tables; the gateway's own. */
  names: string;
};

/** A gateway that runs. `gone` comes when it is known to have ended; of one that was taken over its sockets tell. */
export type GatewayProcess = { process: ProcessId; gone: AbortSignal };

/** Listening descriptors, kept by the daemon so that nobody is refused while a gateway is replaced. */
export type GatewaySockets = Disposable & { control: number; proxy: number; dnsUdp: number; dnsTcp: number };

export async function prepareGatewayPlace(options: {
  tag: string;
  runDir: string;
  dataDir: string;
  storeDir: string;
}): Promise<GatewayPlace> {
  const { tag, runDir, dataDir, storeDir } = options;
  const uid = gatewayUid(tag);
  const own = join(runDir, "gateway");
  const names = join(dataDir, "gateway", "names");
  await mkdir(own, { recursive: true, mode: 0o700 });
  await mkdir(names, { recursive: true, mode: 0o700 });
  await chown(names, uid, uid);
  return {
    ...{ tag, uid, names, program: await placeGatewayProgram(runDir, storeDir) },
    ...{ control: join(own, "control.sock"), record: join(own, "process.json"), words: join(own, "words.log") },
  };
}

/** Makes the sockets anew; a gateway that had them before is ended, and they are free when its last thread is gone. */
export async function openGatewaySockets({ tag, uid, control }: GatewayPlace): Promise<GatewaySockets> {
  for (const deadline = performance.now() + socketsMs; ;) {
    await endGatewayProcesses(uid);
    try {
      const hub = openHubSockets(netnsPath(hubName(tag)), gatewayAddress, proxyPort);
      const fds = { ...hub, control: listenUnix(control) };
      return { ...fds, [Symbol.dispose]: () => Object.values(fds).forEach((fd) => closeSync(fd)) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE" || performance.now() > deadline) throw error;
      await sleep(10);
    }
  }
}

/** Finds the gateway of the daemon before: of this version, of our uid, and answering. */
export async function findGateway(place: GatewayPlace): Promise<GatewayProcess | undefined> {
  const text = await readFile(place.record, "utf8").catch(() => "null");
  const record = GatewayRecord.safeParse(JSON.parse(text));
  if (!record.success || record.data.version !== place.program.version) return undefined;
  const { process } = record.data;
  if (stateOf(process) !== "alive" || (await uidOf(process.pid)) !== place.uid) return undefined;
  const signal = AbortSignal.timeout(takeOverMs);
  const hello = await callGateway(place.control, "GET", "/hello", undefined, signal).catch(() => undefined);
  const answered = GatewayHello.safeParse(hello);
  if (!answered.success || answered.data.version !== place.program.version) return undefined;
  return { process, gone: new AbortController().signal };
}

/** Ends every process of the gateway's uid but `keep`: a daemon that died between start and record leaves one. */
export async function endGatewayProcesses(uid: number, keep?: ProcessId): Promise<void> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  await Promise.all(
    pids.map(async (pid) => {
      if (pid === keep?.pid || (await uidOf(pid)) !== uid) return;
      const found = identify(pid);
      if (found) await killAndWait(found);
    }),
  );
}

/**
 * Starts a gateway on `sockets`: as its own uid from its first instruction, without capabilities, unable to get any, in no
 * group. It outlives the daemon.
 */
export async function launchGateway(place: GatewayPlace, sockets: GatewaySockets): Promise<GatewayProcess> {
  const { uid, program } = place;
  const names = openSync(place.names, "r");
  const words = openSync(place.words, "w", 0o600);
  const gone = new AbortController();
  try {
    const identity = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
    const rights = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"];
    const bounds = [`--nproc=${threadLimit}`, `--data=${memoryLimitBytes}`, "--core=0"];
    const node = [program.node, `--max-old-space-size=${heapLimitMiB}`, program.script, program.version];
    const child = spawn("prlimit", [...bounds, "setpriv", ...identity, ...rights, ...node, "3", "4", "5", "6", "7"], {
      cwd: "/",
      env: { PATH: "/usr/bin:/bin" },
      detached: true,
      stdio: ["ignore", words, words, sockets.control, sockets.proxy, sockets.dnsUdp, sockets.dnsTcp, names],
    });
    await new Promise<void>((resolve, reject) => child.once("spawn", resolve).once("error", reject));
    child.once("exit", (code, signal) => {
      void readFile(place.words, "utf8").then(
        (text) => gone.abort(new Error(`The gateway ended (${signal ?? code}): ${text.trim().slice(-1_000)}`)),
        (error: Error) => gone.abort(error),
      );
    });
    child.unref();
    const process = identify(child.pid!);
    if (!process) throw new Error("Cannot start the gateway: it ended at once");
    await writeFile(`${place.record}.new`, JSON.stringify({ version: program.version, process }));
    await rename(`${place.record}.new`, place.record);
    return { process, gone: gone.signal };
  } finally {
    closeSync(names);
    closeSync(words);
  }
}

export async function removeGatewayPlace(place: GatewayPlace): Promise<void> {
  await rm(dirname(place.control), { recursive: true, force: true });
  await rm(place.program.script, { force: true });
}

async function uidOf(pid: number): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const match = /^Uid:\t(\d+)/m.exec(status);
  return match ? Number(match[1]) : undefined;
}

const GatewayRecord = z.object({
  version: z.string(),
  process: z.object({ bootId: z.string(), pid: z.number().int(), startTime: z.number() }),
});

/** A process with much memory takes its time to go. */
const socketsMs = 5_000;
/** A healthy one answers in a millisecond; the new daemon's start should not hang on a sick one. */
const takeOverMs = 3_000;
/** Node has about a dozen threads; nothing is ever forked. */
const threadLimit = 64;
/** 1,000 full name tables would not fit, a few hostile ones do. */
const heapLimitMiB = 1_024;
/** Heap and buffers: 10,000 stalled connections of 64 KiB each way are 1.3 GB. */
const memoryLimitBytes = 4 * 1024 ** 3;
