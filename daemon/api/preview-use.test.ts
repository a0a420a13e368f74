import assert from "node:assert/strict";
import { test } from "node:test";
import { StreamUse } from "./preview-use.ts";

/** When what flows, as [second, bytes], was taken for use. */
function usedAt(flow: readonly (readonly [second: number, bytes: number])[]): number[] {
  const used: number[] = [];
  let now = 0;
  const use = new StreamUse({ touch: () => void used.push(now) });
  for (const [second, bytes] of flow) {
    now = second;
    use.flow(bytes, second * 1_000);
  }
  return used;
}

const every = (seconds: number, bytes: (index: number) => number) =>
  Array.from({ length: 100 }, (_, index) => [index * seconds, bytes(index)] as const);

test("signs of life are use only the first time", () => {
  assert.deepEqual(usedAt(every(30, () => 21)), [0]);
  assert.deepEqual(usedAt(every(2.5, () => 60)), [0]);
  assert.deepEqual(usedAt(every(15, (index) => [21, 6, 3][index % 3]!)), [0, 15, 30]);
});

test("what says something new is use, as is what is large or quick", () => {
  assert.equal(usedAt(every(30, (index) => 20 + (index % 7))).length, 100);
  assert.equal(usedAt(every(30, () => 4_096)).length, 100);
  assert.equal(usedAt(every(0.2, () => 7)).length, 100);
});
