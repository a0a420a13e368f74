import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { listMounts } from "../linux/mount.ts";
import { examineHost, requireHost } from "./host.ts";

const directory = await mkdtemp(join(tmpdir(), "atoll-host-"));
chmodSync(directory, 0o711);
after(() => rm(directory, { recursive: true }));
const question = { dataDir: join(directory, "data"), uidBase: 1_900_000_000, runtime: "runc" };

test("this machine can run sandboxes, and looking leaves nothing behind", async () => {
  const checks = await examineHost(question);
  requireHost(checks);
  assert.ok(checks.length >= 15);
  for (const check of checks) {
    assert.ok(check.detail.length > 0, check.name);
    assert.equal(check.remedy !== undefined, !check.ok, check.name);
  }
  assert.deepEqual(readdirSync(directory), []);
  assert.deepEqual(listMounts(directory), []);
});

test("a runtime that is not there, a closed directory and taken ids are each found with a remedy", async () => {
  const closed = join(directory, "closed");
  mkdirSync(closed, { mode: 0o700 });
  const checks = await examineHost({ dataDir: join(closed, "data"), uidBase: 0, runtime: "no-such-runtime" });
  const missing = checks.filter((check) => check.needed && !check.ok).map((check) => check.name);
  assert.deepEqual(missing, ["user ids", "OCI runtime", "paths to run mounts"]);
  assert.throws(() => requireHost(checks), { code: "NOT_SUPPORTED", suggestion: /apt-get install runc.*closed|chmod/ });
});
