import assert from "node:assert/strict";
import { test } from "node:test";
import { percentile } from "./statistics.ts";

test("a percentile is a sample, whatever their order", () => {
  const samples = [5, 1, 4, 2, 3];
  assert.deepEqual(
    [0, 50, 95, 100].map((percent) => percentile(samples, percent)),
    [1, 3, 5, 5],
  );
  assert.deepEqual(samples, [5, 1, 4, 2, 3]);
});

test("one sample is every percentile, none is no number", () => {
  assert.equal(percentile([7], 99), 7);
  assert.ok(Number.isNaN(percentile([], 50)));
});
