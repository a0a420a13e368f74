import { execFile } from "node:child_process";
import { type FSWatcher, watch as watchFolder } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { type FileWatchSSEEvent, parseSSEStream, type Sandbox } from "../../sdk/index.ts";
import { type Benchmark, interleave } from "../benchmark.ts";

/** Together enough for a p99 that is not one sample. */
const rounds = 25;
const perRound = 20;

/**
 * Writes to files that are there, each once, so that no write falls into another's joining window, and tells when. The
 * pauses let every event be the only one under way. The clock (CLOCK_MONOTONIC) is the host's, inside too.
 */
const writer = `
import json, os, sys, time
folder, files = sys.argv[1], [f"f{n}" for n in range(int(sys.argv[2]))]
opened = [os.open(os.path.join(folder, name), os.O_WRONLY | os.O_APPEND) for name in files]
told = {}
for name, file in zip(files, opened):
  time.sleep(0.015)
  told[name] = time.monotonic_ns()
  os.write(file, b"x")
time.sleep(0.1)
print(json.dumps(told))
`;
const makeFiles = `cd "$0" && for n in $(seq 0 ${perRound - 1}); do : >"f$n"; done`;

export const watch: Benchmark = {
  name: "watch",
  about:
    "from a write to a file to the event at the reader: inside a sandbox to the SDK's stream, on the host to fs.watch",
  async measure({ box }) {
    await using cleanup = new AsyncDisposableStack();
    const sandbox = box();
    cleanup.defer(async () => void (await sandbox.destroy()));
    await sandbox.mkdir("/workspace/watched");
    await sandbox.exec("sh", ["-c", makeFiles, "/workspace/watched"]);
    const ours = cleanup.use(await watchSandbox(sandbox, "/workspace/watched"));

    const dir = await mkdtemp(join(tmpdir(), "atoll-bench-watch-"));
    cleanup.defer(() => rm(dir, { recursive: true, force: true }));
    await mkdir(join(dir, "watched"));
    await run("sh", ["-c", makeFiles, join(dir, "watched")]);
    const theirs = cleanup.use(watchHost(join(dir, "watched")));

    const args = (folder: string) => ["-c", writer, folder, `${perRound}`];
    return await interleave(
      [
        {
          what: "atoll, to the SDK's stream",
          budget: "watch event",
          round: () => ours.round(async () => (await sandbox.exec("python3", args("/workspace/watched"))).stdout),
        },
        {
          what: "node fs.watch, on the host",
          round: () => theirs.round(async () => (await run("python3", args(join(dir, "watched")))).stdout),
        },
      ],
      rounds,
    );
  },
};

const run = promisify(execFile);

/** When the first event of each file arrived, in nanoseconds. */
type Arrivals = Map<string, bigint>;

type Watched = AsyncDisposable & { round(write: () => Promise<string>): Promise<number[]> };

async function watchSandbox(sandbox: Sandbox, path: string): Promise<Watched> {
  const arrivals: Arrivals = new Map();
  const gone = new AbortController();
  const stream = await sandbox.watch(path);
  const reading = (async () => {
    for await (const event of parseSSEStream<FileWatchSSEEvent>(stream, gone.signal)) {
      if (event.type === "event") note(arrivals, basename(event.path));
    }
  })();
  reading.catch(() => {}); // a round that misses events says so
  return {
    round: (write) => measureRound(arrivals, write),
    async [Symbol.asyncDispose]() {
      gone.abort();
      await reading.catch(() => {});
    },
  };
}

function watchHost(path: string): Watched {
  const arrivals: Arrivals = new Map();
  const watcher: FSWatcher = watchFolder(path, (_, name) => note(arrivals, name ?? ""));
  return {
    round: (write) => measureRound(arrivals, write),
    async [Symbol.asyncDispose]() {
      watcher.close();
    },
  };
}

function note(arrivals: Arrivals, name: string): void {
  if (!arrivals.has(name)) arrivals.set(name, process.hrtime.bigint());
}

async function measureRound(arrivals: Arrivals, write: () => Promise<string>): Promise<number[]> {
  arrivals.clear();
  const written = Object.entries(JSON.parse(await write()) as Record<string, number>);
  return written.map(([name, ns]) => {
    const arrived = arrivals.get(name);
    if (arrived === undefined) throw new Error(`Cannot measure the watch: no event told the write to ${name}`);
    return Number(arrived - BigInt(ns)) / 1e6;
  });
}
