import assert from "node:assert/strict";
import { test } from "node:test";
import { stripVTControlCharacters, styleText } from "node:util";
import { ago, size, span, table } from "./output.ts";

test("columns stand under their headings, also where colours are", () => {
  const green = styleText("green", "running", { validateStream: false });
  const lines = table(
    ["ID", "STATE", "IMAGE"],
    [
      ["a", green, "base"],
      ["long-name", "asleep", "x"],
    ],
  ).split("\n");
  assert.deepEqual(
    lines.map((line) => stripVTControlCharacters(line)),
    ["ID         STATE    IMAGE", "a          running  base", "long-name  asleep   x"],
  );
});

test("sizes and times are told as people read them", () => {
  assert.deepEqual([0, 999, 1_000, 1_550, 12_345_678, 4e9].map(size), [
    "0 B",
    "999 B",
    "1.0 kB",
    "1.6 kB",
    "12 MB",
    "4.0 GB",
  ]);
  assert.deepEqual([0, 59_999, 60_000, 7_200_000, 86_400_000, 2e8].map(span), [
    "0 s",
    "59 s",
    "1 min",
    "2 h",
    "1 day",
    "2 days",
  ]);
  assert.equal(ago(1_000, 61_000), "1 min ago");
  assert.equal(ago(2_000, 1_000), "0 s ago");
});
