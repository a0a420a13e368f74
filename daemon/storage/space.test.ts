import assert from "node:assert/strict";
import { statfs } from "node:fs/promises";
import { test } from "node:test";
import { freeSpace, judgeSpace, watchSpace } from "./space.ts";

test("below a tenth nothing new starts, below a twentieth what runs goes to sleep", () => {
  const verdicts = [1, 0.1, 0.0999, 0.05, 0.0499, 0].map((freeRatio) => judgeSpace({ freeRatio, freeBytes: 1e12 }));
  assert.deepEqual(verdicts, ["enough", "enough", "no-start", "no-start", "sleep", "sleep"]);
});

test("free space is what df tells, and the scarcest file system counts", async () => {
  const { freeBytes, freeRatio } = await freeSpace(["/"]);
  const { bavail, bsize } = await statfs("/");
  assert.ok(Math.abs(freeBytes - bavail * bsize) < 1e9);
  assert.ok(freeRatio > 0 && freeRatio <= 1);
  assert.deepEqual(await freeSpace(["/proc", "/"]), { freeBytes: 0, freeRatio: 0 });
});

test("a watch looks at once and ends with its signal", async () => {
  const stop = new AbortController();
  const seen: string[] = [];
  for await (const { verdict } of watchSpace(["/proc"], { signal: stop.signal, everyMs: 1 })) {
    seen.push(verdict);
    if (seen.length === 3) stop.abort();
  }
  assert.deepEqual(seen, ["sleep", "sleep", "sleep"]);
});
