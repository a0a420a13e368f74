import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { openState } from "../state.ts";
import { newConfig } from "./config.ts";
import { Followers } from "./followers.ts";
import { Journal } from "./journal.ts";
import { lifecycleVerbs } from "./lifecycle.ts";
import type { Machines } from "./machines.ts";
import { Records } from "./record.ts";

/** What following needs of the machines, with one sandbox of class A and one of class B. */
async function open(context: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "atoll-lives-"));
  const db = openState(dir);
  context.after(async () => {
    db.close();
    await rm(dir, { recursive: true });
  });
  const [records, journal, followers] = [new Records(db), new Journal(db), new Followers()];
  const make = (name: string, className: string) => {
    const config = newConfig({ className }, { sleepAfterMs: 1_000 });
    return records.add({ name, config, image: "base", imageDigest: "sha256:1" }, 1);
  };
  const [a, b] = [make("a", "A"), make("b", "B")];
  const { followLifecycle } = lifecycleVerbs({ records, journal, followers } as Machines);
  const gone = new AbortController();
  context.after(() => gone.abort());
  const follow = async (lastEventId?: string, classes = ["A"]) => {
    const input = { params: {}, query: { classes }, body: undefined };
    const events = await followLifecycle(undefined, input, { signal: gone.signal, letGo() {}, lastEventId });
    return events[Symbol.asyncIterator]();
  };
  const start = (key: string, run: number) =>
    journal.write({ time: run, sandboxKey: key, run, type: "run.start", data: { run } });
  return { db, records, journal, followers, gone, follow, start, a, b };
}

type Events = AsyncIterator<{ id?: string; event: { type: string; run?: number } }>;

async function next(events: Events) {
  const { value } = (await events.next()) as { value: { id: string; event: { type: string; run?: number } } };
  return value;
}

test("a follower is told from now on, of its classes alone, and behind an id of all that it has not seen", async (context) => {
  const { follow, start, a, b } = await open(context);
  start(a.key, 1);
  const events = await follow();
  assert.deepEqual((await next(events)).event, { type: "following" });
  const waiting = next(events);
  start(b.key, 1);
  start(a.key, 2);
  const second = await waiting;
  assert.equal(second.event.run, 2);
  start(a.key, 3);
  const again = await follow(second.id);
  assert.deepEqual([(await next(again)).event.run, (await next(events)).event.run], [3, 3]);
  const all = await follow("0", ["A", "B"]);
  const runs = [await next(all), await next(all), await next(all), await next(all)].map(({ event }) => event.run);
  assert.deepEqual(runs, [1, 1, 2, 3]);
});

test("a thousand lines are read a page at a time, as the follower reads", async (context) => {
  const { db, follow, start, journal, a, b } = await open(context);
  for (let run = 1; run <= 500; run++) start(run % 2 ? a.key : b.key, run);
  journal.append({ time: 1, sandboxKey: a.key, run: 1, type: "process", data: {} });
  const events = await follow("0");
  const first = await next(events);
  db.exec(`DELETE FROM journal WHERE seq > ${Number(first.id) + 300}`); // not read yet, so not seen
  const runs = [first.event.run];
  for (let read = 1; read < 151; read++) runs.push((await next(events)).event.run);
  assert.deepEqual(
    runs,
    Array.from({ length: 151 }, (_, n) => 2 * n + 1),
  );
  const waiting = next(events);
  start(a.key, 1_000);
  assert.equal((await waiting).event.run, 1_000);
});

test("a place that the journal has not reached yet is its end; what is no place is refused", async (context) => {
  const { follow, start, a } = await open(context);
  start(a.key, 1);
  const events = await follow("999999");
  const waiting = next(events);
  start(a.key, 2);
  assert.equal((await waiting).event.run, 2);
  for (const id of ["", "-1", "1.5", "NaN", "1".repeat(16), "1 OR 1"]) {
    await assert.rejects(follow(id), { code: "VALIDATION_FAILED" });
  }
});

test("a destroyed sandbox is still known by the line that says so", async (context) => {
  const { follow, journal, records, a } = await open(context);
  const events = await follow();
  await next(events);
  const line = { time: 1, sandboxKey: a.key, run: 1 };
  journal.write({ ...line, type: "destroyed", data: { name: "a", className: "A" } }, () => records.discard(a, 1));
  journal.write({ ...line, type: "run.end", data: { reason: "asked", at: 1 } });
  const { event } = await next(events);
  assert.deepEqual([event.type, (event as { sandbox?: string }).sandbox], ["stop", "a"]);
});

test("what failed before a sandbox claimed its first run is told, however slowly the follower reads", async (context) => {
  const { follow, journal, records, a } = await open(context);
  const error = { code: "CAPACITY_EXCEEDED", message: "no memory" };
  for (let time = 1; time <= 3; time++)
    journal.write({ time, sandboxKey: a.key, run: 0, type: "start.failed", data: { error } });
  const events = await follow("0");
  const first = await next(events);
  const run = records.beginWarmRun({ imageDigest: a.imageDigest, hash: "" }, "boot", 4);
  records.claimRun(run, a, { now: 5, waitedMs: 1 });
  const told = [first, await next(events), await next(events)].map(({ event }) => event);
  assert.deepEqual(
    told.map((event) => [event.type, (event as { sandbox?: string }).sandbox]),
    Array.from({ length: 3 }, () => ["startFailed", "a"]),
  );
});

test("a class is followed while somebody reads, and no longer", async (context) => {
  const { follow, followers, gone } = await open(context);
  const events = await follow(undefined, ["A", "B"]);
  const others = await follow(undefined, ["B"]);
  await Promise.all([next(events), next(others)]);
  await events.return?.();
  assert.deepEqual([followers.has("A"), followers.has("B"), followers.has("C")], [false, true, false]);
  const waiting = others.next();
  gone.abort();
  assert.equal((await waiting).done, true);
  assert.equal(followers.has("B"), false);
});

test("a line and the change that it tells of are written together or not at all", async (context) => {
  const { db, journal, records, a } = await open(context);
  const line = { time: 1, sandboxKey: a.key, run: 1, type: "destroyed", data: {} };
  journal.append({ ...line, type: "process" });
  const refuse = () => {
    db.prepare("DELETE FROM sandboxes").run();
    throw new Error("refused");
  };
  assert.throws(() => journal.write(line, refuse), /refused/);
  assert.equal(journal.lastOf(a.key, "destroyed"), undefined);
  assert.equal(new Records(db).find("a")?.key, a.key);
  journal.write(line, () => records.discard(a, 1));
  const types = db.prepare("SELECT type FROM journal ORDER BY seq").all();
  assert.deepEqual(
    types.map(({ type }) => type),
    ["process", "destroyed"],
  );
});
