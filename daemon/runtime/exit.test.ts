import assert from "node:assert/strict";
import { test } from "node:test";
import { explainExit, explainLimits } from "./exit.ts";

const memoryLimitBytes = 256 * 1024 ** 2;

test("what we did ourselves is the reason, whatever else happened", () => {
  for (const ended of ["asked", "idle", "lifetime"] as const) {
    assert.equal(explainExit({ ended, otherBoot: true, oomKills: 3, memoryLimitBytes }).reason, ended);
  }
});

test("otherwise another boot explains it, then the kernel's counter, then nothing does", () => {
  assert.equal(explainExit({ otherBoot: true, oomKills: 3, memoryLimitBytes }).reason, "host-restart");
  const memory = explainExit({ otherBoot: false, oomKills: 1, memoryLimitBytes });
  assert.equal(memory.reason, "memory");
  assert.match(memory.words, /ran out of memory \(limit 256 MiB\).*choose a larger instance/);
  for (const oomKills of [{}, { oomKills: 0 }]) {
    assert.equal(explainExit({ otherBoot: false, ...oomKills, memoryLimitBytes }).reason, "agent-lost");
  }
});

test("events at the limits are told in words, once each reading", () => {
  const limits = { memoryBytes: 1.5 * 1024 ** 3, pids: 512 };
  const none = { oomKills: 2, pidsRefused: 5 };
  assert.deepEqual(explainLimits(none, none, limits), []);
  assert.deepEqual(explainLimits(none, { oomKills: 3, pidsRefused: 7 }, limits), [
    "One process was killed because the sandbox reached its memory limit of 1.5 GiB",
    "2 processes were not started because the sandbox reached its limit of 512 processes",
  ]);
});
