import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../../test/support/until.ts";
import { run } from "../linux/run.ts";
import { openImages } from "./images.ts";

async function emptyStore(t: TestContext): Promise<string> {
  const storeDir = await mkdtemp("/var/tmp/atoll-build-");
  t.after(() => run("rm", ["-rf", "--one-file-system", storeDir]));
  return storeDir;
}

/** `setup`'s own way to build, as a process that can be killed; gives its lines as they come. */
function builder(t: TestContext, storeDir: string): { child: ChildProcess; said: () => string } {
  const program = join(import.meta.dirname, "../../images/build.ts");
  const child = spawn(process.execPath, [program, "test", "--store", storeDir], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let text = "";
  child.stderr!.on("data", (chunk: Buffer) => (text += chunk.toString()));
  return { child, said: () => text };
}

/** Processes whose command line names the store. */
async function processesOf(storeDir: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.includes(storeDir));
}

for (const moment of ["fetching", "extracting", "importing"]) {
  test(`a build killed with -9 while ${moment} leaves no process and no mount, and the next open finds a whole image or none`, async (t) => {
    const storeDir = await emptyStore(t);
    const { child, said } = builder(t, storeDir);
    await until(`it says "${moment}"`, () => said().includes(moment), 120_000);
    child.kill("SIGKILL");
    await once(child, "close");
    await until("all that it started is gone", async () => (await processesOf(storeDir)).length === 0);
    assert.doesNotMatch(await readFile("/proc/self/mountinfo", "utf8"), new RegExp(storeDir));
    const images = await openImages(storeDir);
    assert.deepEqual(await readdir(join(storeDir, "building")), []);
    // Only the last moment may be too late to prevent one.
    const finished = moment === "importing" ? await images.find("test") : undefined;
    assert.deepEqual(await images.list(), finished ? [finished] : []);
  });
}

test("two builders at once: one waits and takes what the other has made; opening meanwhile disturbs neither", async (t) => {
  const storeDir = await emptyStore(t);
  const first = builder(t, storeDir);
  await until("the first is at work", () => first.said().includes("fetching"));
  const second = builder(t, storeDir);
  await until("the second waits", () => second.said().includes("waiting for another build"));
  await openImages(storeDir);
  assert.equal((await readdir(join(storeDir, "building"))).length, 1);
  const codes = await Promise.all([once(first.child, "close"), once(second.child, "close")]);
  assert.deepEqual(
    codes.map(([code]) => code as number),
    [0, 0],
    first.said() + second.said(),
  );
  assert.doesNotMatch(second.said(), /fetching/);

  const images = await openImages(storeDir);
  const image = await images.find("test");
  assert.equal((await images.list()).length, 1);
  assert.equal(await images.isCurrent("test"), true);
  assert.equal(
    (await run("chroot", [image!.rootDir, "/bin/bash", "-c", "busybox echo $BASH_VERSION"])).startsWith("5."),
    true,
  );
});

test("an aborted build ends at once and leaves nothing", async (t) => {
  const storeDir = await emptyStore(t);
  const images = await openImages(storeDir);
  const stop = new AbortController();
  const building = images.build("test", {
    signal: stop.signal,
    onStep: (text) => text.startsWith("running apt-get update") && stop.abort(new Error("enough")),
  });
  await assert.rejects(building, /enough/);
  assert.deepEqual(await readdir(join(storeDir, "building")), []);
  await until("all that it started is gone", async () => (await processesOf(storeDir)).length === 0);
});

test("a recipe that is not there is told, whatever the name looks like", async (t) => {
  const images = await openImages(await emptyStore(t));
  for (const name of ["nobody", "../base", "", "a/b"])
    await assert.rejects(images.build(name), { code: "IMAGE_NOT_FOUND" });
});
