import assert from "node:assert/strict";
import { test } from "node:test";
import { getSandbox } from "../../sdk/index.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { until } from "../support/until.ts";
import { assertHostIsAsRecorded, readRows } from "./support/records.ts";
import { isAlike, spread } from "./support/spread.ts";
import { SteppedDaemon } from "./support/stepped-daemon.ts";

/** One thing that a daemon does for a caller, cut at each of its steps. */
type Operation = {
  name: string;
  /** It takes the steps of the first operation, and perhaps others: only those are cut. */
  repeatsFirst?: true;
  /** Brings the sandbox to where `work` begins. */
  before(box: Box): Promise<unknown>;
  work(box: Box): Promise<unknown>;
  /** What is true afterwards, for a caller who knows nothing of the end of the daemon. */
  after(box: Box, daemon: SteppedDaemon): Promise<unknown>;
};

type Box = ReturnType<typeof getSandbox>;

const mark = "what the sandbox was given\n";

const operations: Operation[] = [
  {
    name: "the first start of a sandbox",
    before: async () => {},
    work: (box) => box.start(),
    after: async (box) => assert.equal((await box.exec("pwd")).stdout, "/workspace\n"),
  },
  {
    name: "waking a sandbox",
    repeatsFirst: true,
    before: async (box) => {
      await box.writeFile("mark", mark);
      await box.stop();
    },
    work: (box) => box.start(),
    after: async (box) => {
      assert.equal((await box.readFile("mark")).content, mark);
      assert.equal((await box.info()).state, "running");
    },
  },
  {
    name: "a command",
    before: (box) => box.start(),
    work: async (box) => {
      const { stdout, exitCode } = await box.exec("echo once >> ran; echo out; echo err >&2; exit 7");
      assert.deepEqual({ stdout, exitCode }, { stdout: "out\n", exitCode: 7 });
    },
    // Its answer was lost, and it was not run a second time.
    after: async (box) => assert.equal((await box.readFile("ran")).content, "once\n"),
  },
  {
    name: "writing a file",
    before: (box) => box.writeFile("mark", "what was there before\n"),
    work: (box) => box.writeFile("mark", mark),
    after: async (box) => {
      assert.equal((await box.readFile("mark")).content, mark);
      assert.deepEqual((await box.exec("ls -A")).stdout, "mark\n");
    },
  },
  {
    name: "stopping a sandbox",
    before: async (box) => {
      await box.writeFile("mark", mark);
      await box.exec("sleep 1000 &");
    },
    work: (box) => box.stop(),
    after: async (box) => {
      const { state, lastEnd } = await box.info();
      assert.deepEqual([state, lastEnd?.reason], ["asleep", "asked"]);
      assert.equal((await box.readFile("mark")).content, mark);
    },
  },
  {
    name: "destroying a sandbox",
    before: async (box) => {
      await box.writeFile("mark", mark);
      await box.stop(); // or it would only begin as a stop does
    },
    work: (box) => box.destroy(),
    after: async (box, daemon) => {
      await assert.rejects(box.info(), { code: "SANDBOX_NOT_FOUND" });
      const { sandboxes } = readRows(daemon.dataDir);
      assert.ok(!sandboxes.some(({ name }) => name === box.id));
    },
  },
];

/** Most of a cut is waiting for the next daemon; more than this many at a time wait for each other. */
const lanes = 3;

type Cut = { operation: Operation; step: string };

test(
  "kill -9 at any step of what a daemon does: no caller notices, nothing leaks, nothing recorded is lost",
  { concurrency: lanes },
  async (t) => {
    await using daemons = new AsyncDisposableStack();
    const all = await Promise.all(Array.from({ length: lanes }, async () => daemons.use(await SteppedDaemon.start())));
    const found = await rehearse(all[0]!);
    const cuts = spread(found, 36);
    t.diagnostic(`${cuts.length} of ${found.length} steps; all with ATOLL_CRASH_ALL=1`);
    const queue = cuts.values();
    let met = 0;
    const work = async (daemon: SteppedDaemon, lane: number) => {
      const connection = daemon.connect();
      try {
        const counting = await count(getSandbox(connection, "witness"));
        let number = 0;
        for (const { operation, step } of queue) {
          const box = getSandbox(connection, `box-${lane}-${++number}`);
          await t.test(`${operation.name}, cut before: ${step}`, async () => {
            if (await cut(daemon, operation, box, step)) met++;
          });
        }
        await counting.end();
      } finally {
        connection.close();
      }
    };
    await Promise.all(all.map(work));
    // A step that is not taken every time, such as a second greeting, may be missed: then the end comes behind the last one.
    assert.ok(met >= cuts.length * 0.75, `only ${met} of ${cuts.length} steps were met`);
    const before = all.map(({ dataDir }) => nothing(dataDir));
    await daemons.disposeAsync();
    for (const host of before) await assertNothingLeaked(await host);
  },
);

/** What there is to cut: every step of every operation, once. */
async function rehearse(daemon: SteppedDaemon): Promise<Cut[]> {
  const connection = daemon.connect();
  const seen = new Map<Operation, string[]>();
  for (const operation of operations) {
    const box = getSandbox(connection, "rehearsal");
    await operation.before(box);
    seen.set(operation, await daemon.stepsOf(() => operation.work(box)));
    await box.destroy();
  }
  connection.close();
  const [first, ...rest] = operations;
  const known = new Set(seen.get(first!));
  return [first!, ...rest].flatMap((operation) =>
    seen
      .get(operation)!
      .filter((step) => !isAlike(step) && !(operation.repeatsFirst === true && known.has(step)))
      .map((step) => ({ operation, step })),
  );
}

/** Ends the daemon at this step, starts the next, and looks. False when the operation was over before the step came. */
async function cut(daemon: SteppedDaemon, operation: Operation, box: Box, step: string): Promise<boolean> {
  await operation.before(box);
  const { journal } = readRows(daemon.dataDir);
  await daemon.order({ tell: false, killAt: step });
  const work = operation.work(box);
  await Promise.race([daemon.ended, work.catch(() => {})]);
  const met = !daemon.alive;
  await daemon.kill();
  await daemon.up();
  await work;
  await operation.after(box, daemon);
  await assertHostIsAsRecorded(daemon);
  assert.ok(readRows(daemon.dataDir).journal.last >= journal.last);
  await box.destroy();
  return met;
}

/** A host without this daemon. */
async function nothing(dataDir: string) {
  return { ...(await snapshotHost(dataDir)), things: new Map<string, string>() };
}

/** A command that counts, in small steps, over all that happens to its daemon; `end` checks that no number was lost. */
async function count(box: Box): Promise<{ end(): Promise<void> }> {
  const numbers: number[] = [];
  let rest = "";
  const counted = box.exec("i=0; while [ ! -e /tmp/enough ]; do echo $i; i=$((i+1)); sleep 0.05; done", {
    onOutput: (_, data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop() ?? "";
      numbers.push(...lines.map(Number));
    },
  });
  counted.catch(() => {}); // told by `end`
  await until("it counts", () => numbers.length > 0);
  const { run } = await box.info();
  return {
    async end() {
      assert.equal((await box.info()).run, run);
      await box.exec("touch /tmp/enough");
      assert.equal((await counted).exitCode, 0);
      assert.ok(numbers.length > 100);
      assert.deepEqual(numbers, [...numbers.keys()]);
    },
  };
}
