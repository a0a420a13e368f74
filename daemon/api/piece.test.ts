import assert from "node:assert/strict";
import { test } from "node:test";
import { withCopy } from "./piece.ts";

test("a copy is used again when it is no longer needed, and not before", () => {
  const give = (bytes: number, fill: string) =>
    withCopy([Buffer.alloc(bytes, fill)], (copy, done) => ({ copy, done, text: copy.toString() }));
  const first = give(60_000, "a");
  const second = give(60_000, "b");
  assert.notEqual(first.copy.buffer, second.copy.buffer);
  first.done();
  const third = give(20_000, "c");
  assert.equal(third.copy.buffer, first.copy.buffer);
  assert.equal(third.copy.toString(), "c".repeat(20_000));
  assert.equal(second.copy.toString(), second.text);
  for (const bytes of [1, 100_000]) assert.equal(give(bytes, "d").text, "d".repeat(bytes));
});

test("parts are one copy", () => {
  for (const bytes of [1, 5_000, 30_000]) {
    const parts = ["a", "b"].map((fill) => Buffer.alloc(bytes, fill));
    assert.equal(
      withCopy(parts, (copy) => copy.toString()),
      "a".repeat(bytes) + "b".repeat(bytes),
    );
  }
});
