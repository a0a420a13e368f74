import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { openCgroups } from "./cgroup.ts";

test("making moves quick moves nobody", async () => {
  const before = readFileSync("/proc/self/cgroup", "utf8");
  await openCgroups().quickenMoves();
  assert.equal(readFileSync("/proc/self/cgroup", "utf8"), before);
});
