import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openCgroups } from "../../daemon/linux/cgroup.ts";
import { run } from "../../daemon/linux/run.ts";
import { assertNothingLeaked, snapshotHost } from "./leaks.ts";

async function place(stack: AsyncDisposableStack) {
  const dataDir = mkdtempSync(join(tmpdir(), "atoll-leaks-"));
  stack.defer(() => rmSync(dataDir, { recursive: true }));
  const before = await snapshotHost(dataDir);
  const runDir = `/run/atoll/${before.tag}`;
  return { dataDir, before, runDir };
}

/** The words of what has leaked. */
async function leaksSince(before: Awaited<ReturnType<typeof snapshotHost>>): Promise<string> {
  try {
    await assertNothingLeaked(before, { limitMs: 0 });
    return "";
  } catch (error) {
    assert.ok(error instanceof assert.AssertionError);
    return error.message;
  }
}

test("each kind of thing that is left behind is told in words, and nothing once it is gone", async () => {
  await using stack = new AsyncDisposableStack();
  const { dataDir, before, runDir } = await place(stack);
  assert.equal(await leaksSince(before), "");
  const name = `a${before.tag}-7`;
  {
    await using taken = new AsyncDisposableStack();
    mkdirSync(join(runDir, "run1/root"), { recursive: true });
    taken.defer(() => rmSync(runDir, { recursive: true }));
    await run("mount", ["-t", "tmpfs", "tmpfs", join(runDir, "run1/root")]);
    taken.defer(async () => void (await run("umount", [join(runDir, "run1/root")])));
    writeFileSync(join(runDir, "run1/root/inside"), "");
    await run("ip", ["netns", "add", name]);
    taken.defer(async () => void (await run("ip", ["netns", "del", name])));
    await run("nft", ["add", "table", "inet", `atoll_${before.tag}`]);
    taken.defer(async () => void (await run("nft", ["delete", "table", "inet", `atoll_${before.tag}`])));
    const group = `/sys/fs/cgroup${openCgroups().version === "v2" ? "" : "/pids"}/atoll-${before.tag}`;
    mkdirSync(group);
    taken.defer(() => rmdirSync(group));
    const child = spawn("sleep", ["1000"], { cwd: dataDir, stdio: "ignore" });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    taken.defer(async () => {
      child.kill("SIGKILL");
      await ended;
    });
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(dataDir, "api.sock"), resolve));
    taken.defer(() => new Promise<void>((resolve) => server.close(() => resolve())));
    await run("truncate", ["-s", "1M", join(dataDir, "pool.img")]);
    const device = (await run("losetup", ["--find", "--show", join(dataDir, "pool.img")])).trim();
    taken.defer(async () => void (await run("losetup", ["-d", device])));

    const leaks = await leaksSince(before);
    for (const words of [
      `the mount ${runDir}/run1/root (tmpfs)`,
      `the network namespace ${name}`,
      `the nft table inet atoll_${before.tag} of the host`,
      `the control group ${group} (empty)`,
      `the process ${child.pid} (sleep 1000)`,
      `the listening socket ${dataDir}/api.sock`,
      `the loop device ${device} of ${dataDir}/pool.img`,
      `the directory ${runDir}/run1`,
    ]) {
      assert.ok(leaks.includes(words), `${words} is not in:\n${leaks}`);
    }
    assert.ok(!leaks.includes("inside"), "what a sandbox has in its own mounts is not listed");
    await assert.rejects(assertNothingLeaked(before, { except: /directory/, limitMs: 0 }), /7 things were left behind/);
    assert.equal(await leaksSince(await snapshotHost(dataDir)), "", "what was there before is no leak");
  }
  await assertNothingLeaked(before);
});

test("the things of another data directory whose name begins the same are not ours", async () => {
  await using stack = new AsyncDisposableStack();
  const { dataDir, before } = await place(stack);
  mkdirSync(`${dataDir}-2`);
  stack.defer(() => rmSync(`${dataDir}-2`, { recursive: true }));
  const child = spawn("sleep", ["1000"], { cwd: `${dataDir}-2`, env: { DATA: `${dataDir}-2` }, stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  stack.defer(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  assert.equal(await leaksSince(before), "");
});
