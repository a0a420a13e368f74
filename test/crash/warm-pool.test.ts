import assert from "node:assert/strict";
import { test } from "node:test";
import { getSandbox } from "../../sdk/index.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { until } from "../support/until.ts";
import { runRowOf, runRows, untilWarm, warmRows } from "../support/warm-pool.ts";
import { assertHostIsAsRecorded, readRows } from "./support/records.ts";
import { isAlike, spread } from "./support/spread.ts";
import { type Order, SteppedDaemon } from "./support/stepped-daemon.ts";

type Box = ReturnType<typeof getSandbox>;

/** One thing that a daemon does about its pool of one, cut at each of its steps. */
type Operation = {
  name: string;
  /** What the daemon is told about the world meanwhile. */
  world?: Pick<Order, "availableRatio">;
  /** Which of the steps are its own: others come by the way. */
  own(steps: string[]): string[];
  /** How many of them an ordinary run cuts. */
  cuts: number;
  work(daemon: SteppedDaemon, box: Box, waiting: string): Promise<unknown>;
};

const beginsOne = (step: string) => step.startsWith("sql INSERT INTO runs") && step.includes("warm");

const claim = async (box: Box) => {
  const { stdout } = await box.exec(`echo once >> ran; ${look}`);
  assert.equal(stdout, whole(box.id));
};

/** What differs from one sandbox to the next, and from what a run that waits has. */
const look = "hostname; cat /etc/hostname; tail -1 /etc/hosts | cut -f2 -d' '; ulimit -u; stat -fc %b /dev/shm";
/** 512 processes, of which the agent keeps 64; half of 256 MiB, in pages. */
const whole = (name: string) => `${name}\n${name}\n${name}\n448\n32768\n`;

const operations: Operation[] = [
  {
    name: "a claim",
    cuts: 10,
    own: (steps) => steps.slice(0, steps.findIndex(beginsOne) >>> 0),
    work: (_, box) => claim(box),
  },
  {
    name: "making a run that waits",
    cuts: 4,
    own: (steps) => steps.slice(steps.findIndex(beginsOne)),
    async work({ dataDir }, _, waiting) {
      process.kill(runRows(dataDir).find(({ id }) => id === waiting)!.pid, "SIGKILL");
      await until("another waits", () => warmRows(dataDir).some(({ id }) => id !== waiting));
    },
  },
  {
    name: "giving one back because memory is short",
    cuts: 3,
    world: { availableRatio: 0.07 },
    own: (steps) => steps,
    work: (daemon, _, waiting) =>
      until(
        "it is gone, or its daemon",
        () => !daemon.alive || runRows(daemon.dataDir).every(({ id }) => id !== waiting),
      ),
  },
  {
    name: "going down",
    cuts: 3,
    own: (steps) => steps,
    work: (daemon) => daemon.down(),
  },
];

/** Most of a cut is waiting for the next daemon; more than this many at a time wait for each other. */
const lanes = 3;

type Cut = { operation: Operation; step: string };

test(
  "kill -9 at any step of making, claiming and giving back a run that waits: it is one sandbox's, nobody's or gone",
  { concurrency: lanes },
  async (t) => {
    await using daemons = new AsyncDisposableStack();
    const start = async () => daemons.use(await SteppedDaemon.start({ ATOLL_WARM_POOL: "1" }));
    const all = await Promise.all(Array.from({ length: lanes }, start));
    const found = await rehearse(all[0]!);
    const cuts = operations.flatMap((operation) =>
      spread(
        found.filter((it) => it.operation === operation),
        operation.cuts,
      ),
    );
    t.diagnostic(`${cuts.length} of ${found.length} steps; all with ATOLL_CRASH_ALL=1`);
    const queue = cuts.values();
    let met = 0;
    const work = async (daemon: SteppedDaemon, lane: number) => {
      const connection = daemon.connect();
      const kept = getSandbox(connection, "kept");
      await kept.writeFile("mark", "kept");
      let number = 0;
      for (const { operation, step } of queue) {
        const [box, other] = ["box", "other"].map((kind) => getSandbox(connection, `${kind}-${lane}-${number}`, lite));
        number++;
        await t.test(`${operation.name}, cut before: ${step}`, async () => {
          if (await cut(daemon, { operation, step }, box!)) met++;
          await compare(daemon, box!, other!);
          assert.equal((await kept.readFile("mark")).content, "kept");
          await Promise.all([box!.destroy(), other!.destroy()]);
        });
      }
      connection.close();
    };
    await Promise.all(all.map(work));
    // A step that is not taken every time may be missed: then the end comes behind the last one.
    assert.ok(met >= cuts.length * 0.75, `only ${met} of ${cuts.length} steps were met`);
    const before = await Promise.all(all.map(({ dataDir }) => nothing(dataDir)));
    await daemons.disposeAsync();
    for (const host of before) await assertNothingLeaked(host);
  },
);

test("a claim is on the host's disk before anything is done with the run", async () => {
  await using daemon = await SteppedDaemon.start({ ATOLL_WARM_POOL: "1" });
  await untilWarm(daemon.dataDir, 1);
  const connection = daemon.connect();
  const steps = await daemon.stepsOf(() => claim(getSandbox(connection, "claims", lite)));
  connection.close();
  const [claimed, synced, used] = ["sql UPDATE runs SET warm", "datasync DATA/state.db-wal", "POST /processes"].map(
    (beginning) => steps.findIndex((step) => step.startsWith(beginning)),
  );
  assert.ok(0 <= claimed! && claimed! < synced! && synced! < used!, steps.join("\n"));
});

const lite = { instance: "lite" } as const;

/** What there is to cut: every step of every operation, once. */
async function rehearse(daemon: SteppedDaemon): Promise<Cut[]> {
  const connection = daemon.connect();
  const cuts: Cut[] = [];
  for (const operation of operations) {
    const { work, world, own } = operation;
    const [waiting] = await untilWarm(daemon.dataDir, 1);
    const box = getSandbox(connection, "rehearsal", lite);
    await daemon.order({ tell: true, ...world });
    await work(daemon, box, waiting!.id);
    if (daemon.alive) await daemon.order({ tell: false });
    else await daemon.up();
    await box.destroy();
    const steps = own(daemon.takeTold()).filter((step) => !isAlike(step));
    assert.ok(steps.length > 10, `${operation.name} has steps`);
    cuts.push(...steps.map((step) => ({ operation, step })));
  }
  connection.close();
  return cuts;
}

/** Ends the daemon at this step and starts the next. False when the work was over before the step came. */
async function cut(daemon: SteppedDaemon, { operation, step }: Cut, box: Box): Promise<boolean> {
  const [waiting] = await untilWarm(daemon.dataDir, 1);
  const { journal } = readRows(daemon.dataDir);
  await daemon.order({ tell: false, killAt: step, ...operation.world });
  const work = operation.work(daemon, box, waiting!.id);
  await Promise.race([daemon.ended, work.catch(() => {})]);
  const met = !daemon.alive;
  await daemon.kill();
  await daemon.up();
  await work;
  assert.ok(readRows(daemon.dataDir).journal.last >= journal.last);
  return met;
}

/** Whatever has happened: the sandbox has one run, whole, that ran its command once, and the next one has another. */
async function compare(daemon: SteppedDaemon, box: Box, other: Box): Promise<void> {
  if (runRowOf(daemon.dataDir, box.id)) assert.equal((await box.readFile("ran")).content, "once\n");
  else await claim(box);
  assert.equal((await box.exec(look)).stdout, whole(box.id));
  await assertHostIsAsRecorded(daemon);
  assert.equal((await other.exec(`ls -A; ${look}`)).stdout, whole(other.id));
  assert.notEqual(runRowOf(daemon.dataDir, box.id)!.id, runRowOf(daemon.dataDir, other.id)!.id);
  assert.equal((await box.exec("cat ran")).stdout, "once\n");
}

/** A host without this daemon. */
async function nothing(dataDir: string) {
  return { ...(await snapshotHost(dataDir)), things: new Map<string, string>() };
}
