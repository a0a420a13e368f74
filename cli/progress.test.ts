import assert from "node:assert/strict";
import { test } from "node:test";
import { bar, startProgress } from "./progress.ts";

test("a bar tells what is done, how fast, and how much there is", () => {
  assert.equal(
    bar("copied", 30_000_000, 60_000_000, 1_000, 80),
    `copied 30 MB of 60 MB, 30 MB/s  ${"#".repeat(20)}${".".repeat(20)}  50 %`,
  );
  assert.equal(bar("copied", 1_500, 0, 1_000, 80), "copied 1.5 kB, 1.5 kB/s");
});

test("a bar fits every terminal and never passes its end", () => {
  for (let columns = 1; columns <= 200; columns += 1) {
    for (const [done, expected] of [
      [0, 10],
      [5, 10],
      [20, 10],
      [123_456_789, 0],
    ] as const) {
      assert.ok(bar("copied", done, expected, 500, columns).length <= columns);
    }
  }
  assert.match(bar("copied", 20, 10, 1, 80), /#{10,}  100 %$/);
});

test("a bar is drawn on a terminal only, after a while, ten times a second, and taken away", () => {
  let now = 0;
  const written: string[] = [];
  const screen = (isTTY: boolean) => ({ isTTY, columns: 80, write: (text: string) => written.push(text) });
  for (const isTTY of [false, true]) {
    using progress = startProgress("copied", screen(isTTY), () => now);
    progress.expect(1_000);
    for (; now < (isTTY ? 2_000 : 1_000); now += 10) progress.add(10);
    assert.equal(progress.bytes(), 1_000);
  }
  assert.equal(written.length, 8);
  assert.match(written[0] ?? "", /31 %|30 %/);
  assert.equal(written.at(-1), "\r\u001b[K");
});
