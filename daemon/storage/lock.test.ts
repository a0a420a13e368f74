import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { lockFile, tryLockFile } from "./lock.ts";

async function lockPath(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "atoll-lock-"));
  t.after(() => rm(dir, { recursive: true }));
  return join(dir, "lock");
}

test("a held lock is refused to others and waits for its turn, also within one process", async (t) => {
  const path = await lockPath(t);
  const first = await lockFile(path);
  assert.equal(await tryLockFile(path), undefined);
  const waits = Promise.withResolvers<void>();
  const second = lockFile(path, { onWait: waits.resolve });
  await waits.promise;
  await first[Symbol.asyncDispose]();
  await (await second)[Symbol.asyncDispose]();
  await (await tryLockFile(path))![Symbol.asyncDispose]();
});

test("the lock of a process that is killed with -9 is free", async (t) => {
  const path = await lockPath(t);
  const program = `
    import { lockFile } from ${JSON.stringify(join(import.meta.dirname, "lock.ts"))};
    globalThis.held = await lockFile(${JSON.stringify(path)});
    process.stdout.write("locked");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  assert.equal(await tryLockFile(path), undefined);
  child.kill("SIGKILL");
  await once(child, "close");
  await using lock = await tryLockFile(path);
  assert.ok(lock);
});

test("waiting ends with its signal", async (t) => {
  const path = await lockPath(t);
  await using _lock = await lockFile(path);
  const stop = new AbortController();
  const waiting = lockFile(path, {
    signal: stop.signal,
    onWait: () => setImmediate(() => stop.abort(new Error("enough"))),
  });
  await assert.rejects(waiting, /enough/);
});
