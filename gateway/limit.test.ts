import assert from "node:assert/strict";
import { test } from "node:test";
import { admits, createRate } from "./limit.ts";

test("a sandbox has at most 1,024 connections", () => {
  assert.equal(admits({ own: 1_023, total: 1_023, capacity: 10_000, sandboxes: 1 }), true);
  assert.equal(admits({ own: 1_024, total: 1_024, capacity: 10_000, sandboxes: 1 }), false);
});

test("when room gets short only those below their even share get more", () => {
  assert.equal(admits({ own: 900, total: 8_500, capacity: 10_000, sandboxes: 20 }), false);
  assert.equal(admits({ own: 10, total: 8_500, capacity: 10_000, sandboxes: 20 }), true);
  assert.equal(admits({ own: 0, total: 10_000, capacity: 10_000, sandboxes: 20 }), false);
});

test("a rate lets its burst through, then as many as time brings", () => {
  const rate = createRate(10, 3);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => rate.take(1_000)),
    [true, true, true, false],
  );
  assert.equal(rate.take(1_050), false);
  assert.equal(rate.take(1_100), true);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => rate.take(60_000)),
    [true, true, true, false],
  );
});
