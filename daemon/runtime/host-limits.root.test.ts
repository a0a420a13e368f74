import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { openCgroups } from "../linux/cgroup.ts";
import { raiseOwnLimits, readHostLimits } from "./host-limits.ts";

test("a process's limits are raised as far as it may, and none is lowered", async () => {
  const child = spawn("prlimit", ["--nofile=100:200", "--msgqueue=1000:2000", "--core=7:7", "sleep", "1000"], {
    stdio: "ignore",
  });
  try {
    await once(child, "spawn");
    const limits = () => readFileSync(`/proc/${child.pid}/limits`, "utf8");
    while (!/Max core file size +7 /.test(limits())) await new Promise((resolve) => setImmediate(resolve));
    await raiseOwnLimits(child.pid);
    const soft = (name: string) => Number(new RegExp(`^${name} +(\\d+)`, "m").exec(limits())?.[1] ?? Infinity);
    assert.ok(soft("Max open files") >= 200);
    assert.ok(soft("Max msgqueue size") >= 2000);
    assert.equal(soft("Max core file size"), 7);
    assert.ok(readHostLimits(openCgroups(), `/proc/${child.pid}`).openFilesHard >= 200);
  } finally {
    child.kill("SIGKILL");
  }
});

test("what this process may pass on is read from the kernel", () => {
  const { openFilesHard, lockedBytesHard, oomScoreAdj, swapAccounting } = readHostLimits(openCgroups());
  assert.ok(openFilesHard >= 1024);
  assert.ok(lockedBytesHard > 0);
  assert.ok(oomScoreAdj >= -1000 && oomScoreAdj <= 1000);
  assert.equal(typeof swapAccounting, "boolean");
});
