import assert from "node:assert/strict";
import { test } from "node:test";
import { detachKey } from "./detach-key.ts";

const cases: [name: string, pieces: string[], typed: string, detach: boolean][] = [
  ["text goes in", ["ls\r"], "ls\r", false],
  ["the keys leave", ["a\x1dd"], "a", true],
  ["the keys leave when they come one by one", ["a", "\x1d", "d"], "a", true],
  ["twice the first is one of it", ["\x1d\x1dd"], "\x1dd", false],
  ["another key behind the first is passed on with it", ["\x1d", "x"], "\x1dx", false],
  ["a d alone is a d", ["d"], "d", false],
];

for (const [name, pieces, typed, detach] of cases) {
  test(`${name}: ${JSON.stringify(pieces)}`, () => {
    const keys = detachKey();
    const results = pieces.map((piece) => keys(Buffer.from(piece)));
    assert.equal(results.map((result) => Buffer.from(result.typed).toString()).join(""), typed);
    assert.equal(results.at(-1)?.detach, detach);
  });
}
