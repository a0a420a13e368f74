import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { until } from "../../test/support/until.ts";
import { ageAt, bootId, identify, killAndWait, parseStat, stateOf } from "./process.ts";

test("a name full of parentheses and blanks does not confuse the reading", () => {
  const fields = Array.from({ length: 49 }, (_, i) => String(i + 4));
  assert.deepEqual(parseStat(`123 (a) R (b) c) S ${fields.join(" ")}\n`), { state: "S", threads: 20, startTime: 22 });
});

test("an age is a whole number of milliseconds at any time", () => {
  for (let ticks = 0; ticks < 10_000; ticks++) {
    const uptime = `${33_000 + Math.floor(ticks / 100)}.${String(ticks % 100).padStart(2, "0")} 1.00\n`;
    assert.equal(ageAt(uptime, 3_300_000), ticks * 10, uptime);
  }
});

test("we are alive, under our own start time and boot only", () => {
  const self = identify(process.pid);
  assert.ok(self);
  assert.equal(stateOf(self), "alive");
  assert.equal(stateOf({ ...self, startTime: self.startTime + 1 }), "another");
  assert.equal(stateOf({ ...self, bootId: "another" }), "gone");
  assert.equal(self.bootId, bootId());
});

test("a pid that nobody has is nobody", () => {
  assert.equal(identify(2 ** 22 + 1), undefined);
  assert.equal(stateOf({ bootId: bootId(), pid: 2 ** 22 + 1, startTime: 1 }), "gone");
});

test("a killed process has ended when killAndWait says so, and killing it again does nothing", async () => {
  const child = spawn("sleep", ["1000"], { stdio: "ignore" });
  const exited = once(child, "exit");
  const target = identify(child.pid!);
  assert.ok(target);
  await killAndWait(target);
  assert.notEqual(stateOf(target), "alive");
  await killAndWait(target);
  assert.deepEqual(await exited, [null, "SIGKILL"]);
});

test("another process under the same pid is not touched", async () => {
  const child = spawn("sleep", ["1000"], { stdio: "ignore" });
  const target = identify(child.pid!);
  assert.ok(target);
  await killAndWait({ ...target, startTime: target.startTime - 1 });
  assert.equal(stateOf(target), "alive");
  await killAndWait(target);
});

test("a process whose first thread has ended lives while others do, and is killed", async () => {
  const exit = { x64: 60, arm64: 93 }[process.arch as string];
  const program = `
    import koffi from "koffi";
    import { Worker } from "node:worker_threads";
    new Worker("setInterval(() => {}, 1000)", { eval: true }).on("online", () => {
      koffi.load("libc.so.6").func("long syscall(long number, long value)")(${exit}, 0);
    });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: "inherit" });
  const id = identify(child.pid!)!;
  const state = () => parseStat(readFileSync(`/proc/${child.pid}/stat`, "latin1")).state;
  await until("the first thread has ended", () => state() === "Z");
  assert.equal(stateOf(id), "alive");
  await killAndWait(id, AbortSignal.timeout(20_000));
  assert.notEqual(stateOf(id), "alive");
});
