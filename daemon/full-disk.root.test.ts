import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../test/support/until.ts";
import { run } from "./linux/run.ts";
import { Journal } from "./sandbox/journal.ts";
import { isNotTaken, openState, transaction } from "./state.ts";

/** A file system of 8 MB, and the ways to have no room in it and some again. */
async function smallDisk(context: TestContext): Promise<{ dir: string; fill(): void; free(): void }> {
  const dir = await mkdtemp(join(tmpdir(), "atoll-full-"));
  await run("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", dir]);
  context.after(async () => {
    await run("umount", ["--lazy", dir]);
    await rm(dir, { recursive: true });
  });
  const file = join(dir, "fill");
  const fill = () => assert.throws(() => writeFileSync(file, Buffer.alloc(16 * 1024 * 1024)), { code: "ENOSPC" });
  return { dir, fill, free: () => rmSync(file) };
}

const line = { time: 1, sandboxKey: "key", run: 1, type: "process", data: { text: "x".repeat(500_000) } };

test("a change that a full disk does not take says so, and changes nothing", async (context) => {
  const { dir, fill, free } = await smallDisk(context);
  using db = openState(dir);
  const write = () =>
    transaction(db, () => {
      for (let row = 0; row < 2_000; row++)
        db.prepare("INSERT INTO garbage VALUES (?, 1)").run(`${row}`.padEnd(500, "x"));
    });
  fill();
  assert.throws(write, (error) => isNotTaken(error) && /full|I\/O/.test(error.message));
  free();
  assert.equal(db.prepare("SELECT count(*) AS rows FROM garbage").get()?.["rows"], 0);
  write();
});

test("lines of the journal wait for room, and keep their order", async (context) => {
  const { dir, fill, free } = await smallDisk(context);
  using db = openState(dir);
  const journal = new Journal(db);
  fill();
  journal.append(line);
  await new Promise((resolve) => setTimeout(resolve, 300)); // they were tried, and the process is still here
  assert.equal(journal.lastSeq(), 0);
  journal.append({ ...line, type: "second" });
  free();
  await until("both are written", () => journal.lastSeq() === 2);
  assert.equal(journal.lastOf("key", "second")?.seq, 2);
});

test("a log that cannot be written disturbs nobody, and goes on when it can", async (context) => {
  const { dir, fill } = await smallDisk(context);
  const path = join(dir, "log");
  const file = openSync(path, "a");
  fill();
  const program = `
    import { rmSync } from "node:fs";
    import { openLog } from ${JSON.stringify(new URL("log.ts", import.meta.url).href)};
    const log = openLog("info");
    for (let count = 0; count < 3; count++) log.info("x".repeat(10_000));
    rmSync(${JSON.stringify(join(dir, "fill"))});
    log.info("there is room");`;
  const { status } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "ignore", file],
  });
  closeSync(file);
  assert.equal(status, 0);
  assert.match(readFileSync(path, "utf8"), /there is room/);
});
