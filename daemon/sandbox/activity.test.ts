import assert from "node:assert/strict";
import { test } from "node:test";
import { Activity } from "./activity.ts";
import { readMemory } from "./capacity.ts";

test("a run is idle from the moment the last hold is given back", () => {
  const activity = new Activity(() => 0);
  const first = activity.hold();
  const second = activity.hold();
  first[Symbol.dispose]();
  assert.equal(activity.idleMs(performance.now() + 5_000), 0);
  second[Symbol.dispose]();
  second[Symbol.dispose](); // giving back twice counts once
  assert.equal(activity.held, false);
  const idleMs = activity.idleMs(performance.now() + 5_000);
  assert.ok(idleMs >= 5_000 && idleMs < 5_100, `${idleMs}`);
});

test("a busy processor is use, an idle dev server's is not", () => {
  let cpuNs = 0;
  const activity = new Activity(() => cpuNs);
  const startMs = performance.now();
  activity.idleMs(startMs);
  cpuNs += 500e6; // half a processor for a second
  assert.equal(activity.idleMs(startMs + 1_000), 0);
  cpuNs += 5e6; // half a percent
  assert.equal(Math.round(activity.idleMs(startMs + 2_000)), 1_000);
});

test("a run whose processor time cannot be read is judged by its requests alone", () => {
  const activity = new Activity(() => undefined);
  assert.ok(activity.idleMs(performance.now() + 1_000) >= 1_000);
});

test("a run that was taken over is as old as it is", () => {
  assert.ok(new Activity(() => 0, 60_000).ageMs >= 60_000);
  assert.ok(new Activity(() => 0, -60_000).ageMs < 1_000); // the wall clock went back
});

test("the host's memory is read from meminfo", () => {
  const meminfo = "MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1000 kB\n";
  assert.deepEqual(readMemory(meminfo), { totalBytes: 2_048_000, availableBytes: 1_024_000 });
});

test("what fails again and again is no use, however much of the processor it takes", () => {
  let cpuNs = 0;
  const activity = new Activity(() => cpuNs);
  const startMs = performance.now();
  activity.idleMs(startMs);
  const end = activity.uncount(60_000);
  cpuNs += 900e6;
  assert.equal(activity.idleMs(startMs + 1_000) >= 1_000, true);
  end(900);
  end(900); // told twice counts once
  assert.equal(activity.idleMs(startMs + 2_000) >= 2_000, true);
});

test("what is done beside something that fails is use", () => {
  let cpuNs = 0;
  const activity = new Activity(() => cpuNs);
  const startMs = performance.now();
  activity.idleMs(startMs);
  const end = activity.uncount(60_000);
  cpuNs += 900e6;
  end(100);
  assert.equal(activity.idleMs(startMs + 1_000), 0);
});
