import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { openState } from "../state.ts";
import { bootId } from "../linux/process.ts";
import { newConfig } from "./config.ts";
import { endingOf } from "./give-back.ts";
import { Journal } from "./journal.ts";
import { PortTable } from "./port-table.ts";
import { Records } from "./record.ts";

async function open(context: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "atoll-record-"));
  let db = openState(dir);
  context.after(async () => {
    db.close();
    await rm(dir, { recursive: true });
  });
  const again = () => {
    db.close();
    db = openState(dir);
    return new Records(db);
  };
  return { dir, records: new Records(db), again, db: () => db };
}

const config = newConfig({ labels: { team: "data" } }, { sleepAfterMs: 1_000 });
const sandbox = { name: "box", config, image: "base", imageDigest: "sha256:1" };
const processId = { bootId: "boot", pid: 42, startTime: 7 };

test("sandboxes and runs are found again by the next daemon", async (context) => {
  const { records, again } = await open(context);
  const { key } = records.add(sandbox, 100);
  const run = records.beginRun(key, "boot", 200);
  records.setSlot(run.id, 3);
  records.setProcess(run.id, processId);
  records.setRunning(run.id);
  const next = again();
  assert.deepEqual(next.find("box"), { ...sandbox, key, runNumber: 1, created: 100, lastActive: 100 });
  assert.deepEqual(next.findByKey(key), next.find("box"));
  assert.deepEqual(next.runs(), [
    {
      id: run.id,
      sandboxKey: key,
      number: 1,
      state: "running",
      slot: 3,
      bootId: "boot",
      process: processId,
      began: 200,
      waitedMs: 0,
    },
  ]);
});

test("what is read from memory is what the next daemon reads from the file, after every change", async (context) => {
  const { records, again } = await open(context);
  const { key } = records.add(sandbox, 100);
  records.setConfig(key, { ...config, keepAlive: true });
  records.setLastActive(key, 150);
  const run = records.beginRun(key, "boot", 200);
  records.endRun(run, { reason: "memory", at: 300, detail: "too much" });
  const before = records.list();
  assert.deepEqual(again().list(), before);
  assert.deepEqual(before[0]?.lastEnd, { reason: "memory", at: 300, detail: "too much" });
  assert.equal(before[0]?.lastActive, 300);
});

test("a sandbox has one run at a time, and every run a number of its own", async (context) => {
  const { records } = await open(context);
  const { key } = records.add(sandbox, 0);
  const first = records.beginRun(key, "boot", 0);
  assert.throws(() => records.beginRun(key, "boot", 0), /UNIQUE/);
  assert.equal(records.find("box")?.runNumber, 1);
  records.endRun(first, { reason: "asked", at: 1 });
  assert.equal(records.beginRun(key, "boot", 2).number, 2);
});

test("a discarded name is free at once, its key is garbage until it is forgotten", async (context) => {
  const { records, again } = await open(context);
  const first = records.add(sandbox, 0);
  records.discard(first, 50);
  assert.equal(records.find("box"), undefined);
  const second = records.add(sandbox, 60);
  assert.notEqual(second.key, first.key);
  const next = again();
  assert.deepEqual(next.garbage(), [first.key]);
  next.forgetGarbage(50);
  assert.deepEqual(next.garbage(), [first.key]);
  next.forgetGarbage(51);
  assert.deepEqual(next.garbage(), []);
});

test("images in use are those of all sandboxes, each once", async (context) => {
  const { records } = await open(context);
  records.add(sandbox, 0);
  records.add({ ...sandbox, name: "b" }, 0);
  records.add({ ...sandbox, name: "c", imageDigest: "sha256:2" }, 0);
  assert.deepEqual([...records.imagesInUse()].sort(), ["sha256:1", "sha256:2"]);
});

const make = { imageDigest: "sha256:9", hash: "made like this" };

test("a warm run is found by the next daemon, is no sandbox, and holds its image until it has ended", async (context) => {
  const { records, again } = await open(context);
  const run = records.beginWarmRun(make, "boot", 10);
  records.setProcess(run.id, processId);
  const next = again();
  assert.deepEqual(next.runs(), [{ ...run, process: processId }]);
  assert.deepEqual([next.list(), [...next.imagesInUse()]], [[], ["sha256:9"]]);
  next.endWarmRun(run, 20);
  assert.deepEqual([next.runs(), [...next.imagesInUse()]], [[], []]);
  assert.deepEqual(next.garbage(), [run.sandboxKey]); // a power failure may bring its disk back
  assert.deepEqual([again().runs(), [...again().imagesInUse()]], [[], []]);
});

test("a claim gives the sandbox the run's key, and what was said about it goes along", async (context) => {
  const { records, again, db } = await open(context);
  const before = records.add(sandbox, 1);
  const journal = new Journal(db());
  const line = { run: 0, type: "created", data: {} };
  journal.append({ ...line, time: 1, sandboxKey: before.key });
  journal.append({ ...line, time: 2, sandboxKey: "another" });
  journal.flush();
  journal.append({ ...line, time: 3, sandboxKey: before.key });
  const run = records.beginWarmRun(make, "boot", 10);
  const claimed = records.claimRun(run, before, { now: 30, waitedMs: 20 });
  journal.rekey(before.key, claimed.key);
  journal.flush();
  assert.deepEqual(claimed, { ...before, key: run.sandboxKey });
  assert.deepEqual([records.find("box"), records.findByKey(before.key)], [claimed, undefined]);
  assert.deepEqual([run.state, run.began, run.waitedMs, run.warm], ["starting", 30, 20, undefined]);
  assert.deepEqual([...records.imagesInUse()], ["sha256:1"]);
  const keys = db().prepare("SELECT sandbox_key AS key FROM journal ORDER BY time").all();
  assert.deepEqual(
    keys.map(({ key }) => key),
    [claimed.key, "another", claimed.key],
  );
  const next = again();
  assert.deepEqual([next.find("box"), next.runs()], [claimed, [run]]);
  assert.deepEqual(next.garbage(), []);
});

test("a claimed run is its sandbox's first one when all that makes it so is done, and not before", async (context) => {
  const { records, again } = await open(context);
  const run = records.beginWarmRun(make, "boot", 10);
  records.claimRun(run, records.add(sandbox, 1), { now: 30, waitedMs: 20 });
  assert.equal(records.find("box")?.runNumber, 0);
  records.confirmClaim(run);
  assert.equal(records.find("box")?.runNumber, 1);
  const next = again();
  assert.deepEqual([next.find("box"), next.runs()[0]?.state], [records.find("box"), "running"]);
});

test("a claim that cannot be written changes nothing", async (context) => {
  const { records, again, db } = await open(context);
  const { key } = records.add(sandbox, 1);
  new PortTable(db()).put({ sandboxKey: key, port: 8000, slug: "box", token: "t", auth: "token" });
  const run = records.beginWarmRun(make, "boot", 10);
  assert.throws(() => records.claimRun(run, records.find("box")!, { now: 30, waitedMs: 20 }), /FOREIGN KEY/);
  assert.deepEqual([records.find("box")?.key, run.warm], [key, make]);
  assert.deepEqual([again().find("box")?.key, again().runs()], [key, [run]]);
});

test("a database of a later version is refused, and nothing in it is changed", async (context) => {
  const { dir, db } = await open(context);
  db().exec("PRAGMA user_version = 99");
  assert.throws(() => openState(dir), /later version of Atoll/);
});

test("journal lines are written together, in order, and numbered", async (context) => {
  const { db } = await open(context);
  const journal = new Journal(db());
  const line = { sandboxKey: "k", run: 1, type: "process", data: { exitCode: 0 } };
  journal.append({ ...line, time: 1 });
  journal.append({ ...line, time: 2 });
  const rows = () => db().prepare("SELECT seq, time, type, data FROM journal ORDER BY seq").all();
  assert.equal(rows().length, 0);
  journal.flush();
  assert.deepEqual(
    rows().map((row) => ({ ...row })),
    [1, 2].map((seq) => ({ seq, time: seq, type: "process", data: '{"exitCode":0}' })),
  );
});

test("why a run is ending is known to the next daemon; what is found over otherwise is explained by its row", async (context) => {
  const { records, again } = await open(context);
  const { key } = records.add(sandbox, 100);
  const run = records.beginRun(key, bootId(), 200);
  assert.deepEqual(endingOf(run), { reason: "start-failed" });
  records.setRunning(run.id);
  const [running] = records.runs();
  assert.deepEqual(running && endingOf(running), { reason: "agent-lost" });
  assert.deepEqual(running && endingOf({ ...running, bootId: "another" }), { reason: "host-restart" });
  records.setStopping(run.id, { reason: "memory", detail: "too much" });
  const [stopping] = again().runs();
  assert.deepEqual(stopping && endingOf(stopping), { reason: "memory", detail: "too much" });
});
