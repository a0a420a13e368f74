import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { raiseSysctl, readSysctl } from "./sysctl.ts";

const root = await mkdtemp(join(tmpdir(), "atoll-sysctl-"));
after(() => rm(root, { recursive: true }));
mkdirSync(join(root, "fs/inotify"), { recursive: true });
mkdirSync(join(root, "net/conf/eth0.1"), { recursive: true });
const file = join(root, "fs/inotify/max_user_instances");

test("a setting below is raised, one at or above is never lowered", () => {
  writeFileSync(file, "128\n");
  assert.deepEqual(raiseSysctl("fs.inotify.max_user_instances", 1024, root), { before: 128, after: 1024 });
  assert.deepEqual(raiseSysctl("fs.inotify.max_user_instances", 512, root), { before: 1024, after: 1024 });
  assert.equal(readFileSync(file, "utf8"), "1024\n");
});

test("a setting that this kernel does not have, or that is no number, is left alone", () => {
  assert.equal(readSysctl("fs.nothing", root), undefined);
  assert.equal(raiseSysctl("fs.nothing", 1, root), undefined);
  writeFileSync(file, "word\n");
  assert.equal(raiseSysctl("fs.inotify.max_user_instances", 1, root), undefined);
  assert.equal(readSysctl("fs.inotify.max_user_instances", root), "word");
});

test("a slash stands for the dot of an interface's name", () => {
  writeFileSync(join(root, "net/conf/eth0.1/mtu"), "1500\n");
  assert.equal(readSysctl("net.conf.eth0/1.mtu", root), "1500");
});

test("the real kernel answers", () => {
  assert.ok(Number(readSysctl("kernel.pid_max")) > 1000);
});
