import assert from "node:assert/strict";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { kill } from "../../daemon/linux/process.ts";
import { run } from "../../daemon/linux/run.ts";
import { getSandbox } from "../../sdk/index.ts";
import { assertNothingLeaked, snapshotHost, type HostSnapshot } from "../support/leaks.ts";
import { until } from "../support/until.ts";
import { assertHostIsAsRecorded, readRows } from "./support/records.ts";
import { spread } from "./support/spread.ts";
import { SteppedDaemon } from "./support/stepped-daemon.ts";

const hosts: HostSnapshot[] = [];
after(async () => {
  for (const host of hosts) await assertNothingLeaked(host);
});

/** A daemon whose host is looked at when the file ends. */
async function start(env?: Record<string, string>): Promise<SteppedDaemon> {
  const daemon = await SteppedDaemon.start(env);
  hosts.push({ ...(await snapshotHost(daemon.dataDir)), things: new Map() });
  return daemon;
}

/** Repeated steps and single settings of the kernel are alike: one of each is cut. */
function once(steps: string[]): string[] {
  return steps.filter(
    (step) =>
      !/\(\d+\)$|^prlimit|\/proc\/sys\/|^(rmdirSync|openSync|writeFileSync) \/sys\/fs\/cgroup\/(?!cpu\/)/.test(step),
  );
}

test("kill -9 at any step of a daemon's own start: the next one takes over, with what the last ones left half put right", async () => {
  await using daemon = await start();
  const connection = daemon.connect();
  const witness = getSandbox(connection, "witness");
  const counted = witness.exec("for i in $(seq 100000); do echo $i; [ -e /tmp/enough ] && exit 0; sleep 0.05; done");
  counted.catch(() => {}); // told below
  // Runs that die while no daemon looks, one for each life that must give one back.
  const doomed = Array.from({ length: 8 }, (_, index) => getSandbox(connection, `doomed-${index}`));
  for (const box of doomed) await box.writeFile("mark", box.id);
  const { runs, sandboxes } = readRows(daemon.dataDir);
  const pids = sandboxes
    .filter(({ name }) => name.startsWith("doomed"))
    .map(({ key }) => runs.find((row) => row.sandbox_key === key)!.pid!);
  await daemon.kill();
  kill(pids.pop()!);
  await daemon.up({ tell: true });
  const steps = once(daemon.takeTold());
  const recovery = steps.findIndex((step) => step.includes("DELETE FROM runs"));
  let met = 0;
  for (const step of spread(steps, 20)) {
    await daemon.kill();
    // The steps of giving back come only where there is something to give.
    if (pids.length > 0 && steps.indexOf(step) > recovery - 20) kill(pids.pop()!);
    if (!(await daemon.tryUp({ tell: false, killAt: step }))) met++;
  }
  assert.ok(met >= 12, `only ${met} steps were met`);
  await daemon.kill();
  await daemon.up();
  await assertHostIsAsRecorded(daemon);
  await witness.exec("touch /tmp/enough");
  const lines = (await counted).stdout.trim().split("\n").map(Number);
  assert.deepEqual(
    lines,
    lines.map((_, index) => index + 1),
  );
  for (const box of doomed) assert.equal((await box.readFile("mark")).content, box.id);
  connection.close();
});

test("kill -9 at any step of going down: the next daemon finds every disk, and its own way down leaves nothing", async () => {
  await using daemon = await start();
  const connection = daemon.connect();
  const box = getSandbox(connection, "kept");
  await box.writeFile("mark", "kept");
  await daemon.order({ tell: true });
  await daemon.down();
  const [host] = hosts.slice(-1);
  await assertNothingLeaked(host!);
  const steps = once(daemon.takeTold());
  for (const step of spread(steps, 5)) {
    await daemon.up();
    assert.equal((await box.readFile("mark")).content, "kept");
    await daemon.order({ tell: false, killAt: step });
    await daemon.down();
  }
  await daemon.up();
  assert.equal((await box.readFile("mark")).content, "kept");
  await assertHostIsAsRecorded(daemon);
  await daemon.down({ purge: true });
  await assertNothingLeaked(host!);
  await daemon.up();
  assert.deepEqual(await connection.listSandboxes(), []);
  connection.close();
});

test("after another boot every run has ended for that reason, and disks are kept", async () => {
  await using daemon = await start();
  const connection = daemon.connect();
  const boxes = ["one", "two"].map((name) => getSandbox(connection, name));
  for (const box of boxes) await box.writeFile("mark", box.id);
  await daemon.kill();
  await daemon.up({ tell: false, bootId: "00000000-1111-2222-3333-444444444444" });
  for (const box of boxes) {
    const { state, lastEnd } = await box.info();
    assert.deepEqual([state, lastEnd?.reason], ["asleep", "host-restart"]);
  }
  await assertHostIsAsRecorded(daemon);
  for (const box of boxes) assert.equal((await box.readFile("mark")).content, box.id);
  connection.close();
});

test("a clock that is set neither puts a sandbox to sleep nor keeps it awake, nor ends its life", async () => {
  const yearsMs = 10 * 365 * 24 * 3_600_000;
  await using daemon = await start();
  const connection = daemon.connect();
  for (const clockMs of [yearsMs, -yearsMs]) {
    const long = getSandbox(connection, "long", { sleepAfter: "1h", maxLifetime: "1h" });
    const short = getSandbox(connection, "short", { sleepAfter: "1s" });
    await long.start();
    await short.start();
    const { run: before } = await long.info();
    await daemon.order({ tell: false, clockMs });
    // Its going to sleep also shows that the other one was looked at.
    await until("the idle one sleeps", async () => (await short.info()).state === "asleep");
    assert.equal((await long.info()).state, "running");
    // A daemon that takes runs over knows their age from the kernel, not from two readings of the clock.
    await daemon.kill();
    await daemon.up({ tell: false, clockMs });
    await short.start();
    await until("the idle one sleeps", async () => (await short.info()).state === "asleep");
    const { state, run: now } = await long.info();
    assert.deepEqual([state, now], ["running", before]);
    await daemon.kill();
    await daemon.up();
  }
  connection.close();
});

test("a state file of garbage is refused in clear words, and nothing is deleted", async () => {
  await using daemon = await start();
  const connection = daemon.connect();
  const box = getSandbox(connection, "kept");
  await box.writeFile("mark", "kept");
  const { run: before } = await box.info();
  await daemon.kill("SIGTERM");
  const path = join(daemon.dataDir, "state.db");
  const whole = await readFile(path);
  const host = await snapshotHost(daemon.dataDir);
  const logged = daemon.log().length;
  await writeFile(path, Buffer.alloc(whole.length, "garbage "));
  assert.equal(await daemon.tryUp(), false);
  assert.match(daemon.log().slice(logged), /Cannot open ".*state\.db": .*not a database/);
  for (const key of host.things.keys()) {
    if (/^(mount|group|loop|process|netns \S+-hub)/.test(key))
      assert.ok((await snapshotHost(daemon.dataDir)).things.has(key), key);
  }
  await writeFile(path, whole);
  await daemon.up();
  assert.equal((await box.info()).run, before);
  assert.equal((await box.readFile("mark")).content, "kept");
  connection.close();
});

test("without its image a sandbox says so and keeps its disk; with it again it wakes", async () => {
  const storeDir = `/var/lib/atoll/crash-store-${process.pid}`;
  await mkdir(storeDir, { mode: 0o711 });
  try {
    await run("cp", ["-a", "--link", "/var/lib/atoll/store/.", storeDir]);
    await using daemon = await start({ ATOLL_STORE_DIR: storeDir });
    const connection = daemon.connect();
    const box = getSandbox(connection, "kept");
    await box.writeFile("mark", "kept");
    await box.stop();
    await daemon.kill();
    await rename(join(storeDir, "images"), join(storeDir, "away"));
    await daemon.up();
    await assert.rejects(box.start(), { code: "IMAGE_NOT_FOUND" });
    await assert.rejects(getSandbox(connection, "another").start(), { code: "IMAGE_NOT_FOUND" });
    await assertHostIsAsRecorded(daemon);
    await daemon.kill();
    await rm(join(storeDir, "images"), { recursive: true });
    await rename(join(storeDir, "away"), join(storeDir, "images"));
    await daemon.up();
    assert.equal((await box.readFile("mark")).content, "kept");
    connection.close();
  } finally {
    await run("rm", ["-rf", "--one-file-system", storeDir]);
  }
});

test("in a full pool a start is refused with the remedy, what runs goes on, and with room again it starts", async () => {
  await using daemon = await start();
  const connection = daemon.connect();
  const box = getSandbox(connection, "witness");
  await box.writeFile("mark", "kept");
  const filler = join(daemon.dataDir, "pool/filler");
  const { free } = await space(daemon.dataDir);
  await run("fallocate", ["--length", String(Math.floor(free * 0.92)), filler]);
  await daemon.kill();
  await daemon.up();
  await assert.rejects(
    getSandbox(connection, "another").start(),
    (error: Error & { code?: string; suggestion?: string }) => {
      assert.equal(error.code, "CAPACITY_EXCEEDED");
      assert.ok(error.suggestion);
      return true;
    },
  );
  await rm(filler);
  await run("btrfs", ["filesystem", "sync", join(daemon.dataDir, "pool")]); // or the room comes up to 30 s later
  await daemon.kill();
  await daemon.up();
  assert.equal((await getSandbox(connection, "another").exec("echo room")).stdout, "room\n");
  assert.equal((await box.readFile("mark")).content, "kept");
  await assertHostIsAsRecorded(daemon);
  connection.close();
});

async function space(dataDir: string): Promise<{ free: number }> {
  const table = await run("df", ["--block-size=1", "--output=avail", join(dataDir, "pool")]);
  return { free: Number(table.trim().split("\n").at(-1)) };
}
