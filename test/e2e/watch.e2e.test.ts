import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { getSandbox, type Sandbox, SandboxError } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { runProgram } from "../support/program.ts";
import { until } from "../support/until.ts";
import { collect } from "../support/watched.ts";

const house = resolve(import.meta.dirname, "../..");
let daemon: TestDaemon;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  box = getSandbox(daemon.connect(), "watch");
});

after(async () => {
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
});

/** Runs the command line of this checkout against the daemon. */
function atoll(...args: string[]) {
  const env = { ...process.env, ATOLL_URL: daemon.url, ATOLL_TOKEN: daemon.token };
  return runProgram(process.execPath, [join(house, "cli/main.ts"), ...args], { cwd: house, env });
}

/** How many directories the agent has under watch. */
async function inotifyHandles(): Promise<number> {
  const { stdout } = await box.exec("cat /proc/1/fdinfo/* 2>/dev/null | grep -c ^inotify; true");
  return Number(stdout.trim());
}

test("a watch is set before it is returned, and tells what happens in directories that are made meanwhile", async () => {
  await box.mkdir("/tmp/a", { recursive: true });
  await using watch = await collect(box, "/tmp/a");
  await box.exec("mkdir -p /tmp/a/x/ü; echo 1 > /tmp/a/x/ü/✓.txt");
  await until("the file is told", () => watch.told().includes("create /tmp/a/x/ü/✓.txt"));
  assert.deepEqual(watch.events[0]?.type === "watching" && watch.events[0].path, "/tmp/a");
  const directory = watch.events.find((event) => event.type === "event" && event.path === "/tmp/a/x/ü");
  assert(directory?.type === "event" && directory.isDirectory && !Number.isNaN(Date.parse(directory.timestamp)));
});

test("a rename across watched directories is told with both names, a deletion with its own", async () => {
  await box.exec("mkdir -p /tmp/b/from /tmp/b/to; echo 1 > /tmp/b/from/f");
  await using watch = await collect(box, "/tmp/b");
  await box.exec("mv /tmp/b/from/f /tmp/b/to/g; rm /tmp/b/to/g");
  await until("all is told", () => watch.told().includes("delete /tmp/b/to/g"));
  assert.deepEqual(
    watch.told().filter((line) => !line.startsWith("attrib")),
    ["move_from /tmp/b/from/f", "move_to /tmp/b/to/g", "delete /tmp/b/to/g"],
  );
});

test("what nobody writes by hand is left out unless it is asked for; patterns choose", async () => {
  await box.mkdir("/tmp/c", { recursive: true });
  await using byDefault = await collect(box, "/tmp/c");
  await using scripts = await collect(box, "/tmp/c", { include: ["*.ts"] });
  await using all = await collect(box, "/tmp/c", { exclude: [] });
  await using flat = await collect(box, "/tmp/c", { recursive: false });
  await box.exec("cd /tmp/c; mkdir node_modules .git src; touch node_modules/m.ts .git/HEAD src/a.ts src/a.md end");
  const paths = (watch: typeof all) =>
    [...new Set(watch.told().filter((line) => line.startsWith("create")))].map((line) => line.slice(14)).sort();
  await until("all has arrived", () => [byDefault, all, flat].every((watch) => paths(watch).includes("end")));
  assert.deepEqual(paths(all), [
    ".git",
    ".git/HEAD",
    "end",
    "node_modules",
    "node_modules/m.ts",
    "src",
    "src/a.md",
    "src/a.ts",
  ]);
  assert.deepEqual(paths(byDefault), ["end", "src", "src/a.md", "src/a.ts"]);
  assert(paths(flat).every((path) => !path.includes("/")));
  await until("the scripts are told", () => paths(scripts).length === 2);
  assert.deepEqual(paths(scripts), ["node_modules/m.ts", "src/a.ts"]);
});

test("a watch that cannot be is refused before a stream is there", async () => {
  for (const [path, options, code] of [
    ["/tmp", { include: ["a"], exclude: ["b"] }, "VALIDATION_FAILED"],
    ["/tmp", { include: ["[b"] }, "VALIDATION_FAILED"],
    ["/not/there", {}, "FILE_NOT_FOUND"],
    ["/etc/passwd", {}, "NOT_DIRECTORY"],
  ] as const) {
    await assert.rejects(box.watch(path, options), (error) => SandboxError.is(error, code), path);
  }
});

test("a watch whose directory is removed says so and ends", async () => {
  await box.mkdir("/tmp/d", { recursive: true });
  await using watch = await collect(box, "/tmp/d");
  await box.exec("touch /tmp/d/f; rm -r /tmp/d");
  await watch.ended;
  assert.equal(watch.events.at(-1)?.type, "stopped");
  assert(watch.told().includes("delete /tmp/d/f"));
});

test("cancelling a quiet watch closes its inotify handles, also after reading nothing", async () => {
  await box.exec("mkdir -p /tmp/e/{1..20}");
  assert.equal(await inotifyHandles(), 0);
  const read = await collect(box, "/tmp/e");
  const unread = await box.watch("/tmp/e");
  await until("all is watched", async () => (await inotifyHandles()) > 20);
  await read[Symbol.asyncDispose]();
  await unread.cancel();
  await until("the handles are closed", async () => (await inotifyHandles()) === 0);
});

test("of ten thousand new files every one is told, or that events were lost", async () => {
  await box.mkdir("/tmp/f", { recursive: true });
  await using watch = await collect(box, "/tmp/f");
  await box.exec("cd /tmp/f; for d in $(seq 100); do mkdir $d; (cd $d; touch $(seq 100)); done; touch end");
  await until("the end is told", () => watch.told().includes("create /tmp/f/end"), 60_000);
  // what was found by looking into a new directory may be told behind what happened later elsewhere
  const told = () => new Set(watch.told().filter((line) => line.startsWith("create")));
  await until("every one is told, or the loss", () => watch.lost() || told().size === 10_101);
});

test("what is put into a directory as soon as it is made is told", async () => {
  await box.mkdir("/tmp/j", { recursive: true });
  await using watch = await collect(box, "/tmp/j");
  const program = `import os
for n in range(4000):
  os.mkdir(f"/tmp/j/{n}")
  for file in "abc": open(f"/tmp/j/{n}/{file}", "x").close()
open("/tmp/j/end", "x").close()`;
  await box.exec("python3", ["-c", program]);
  await until("the end is told", () => watch.told().includes("create /tmp/j/end"), 60_000);
  assert(!watch.events.some((event) => event.type === "error"));
  const files = Array.from({ length: 4000 }, (_, n) => ["a", "b", "c"].map((file) => `create /tmp/j/${n}/${file}`));
  // as above: those of the last directories may come behind the end
  const missing = () => {
    const told = new Set(watch.told());
    return files.flat().filter((line) => !told.has(line));
  };
  await until("every one is told", () => missing().length === 0).catch(() => assert.deepEqual(missing(), []));
});

test("who was away learns whether something happened, without looking at the tree", async () => {
  await box.mkdir("/tmp/g", { recursive: true });
  const first = await box.checkChanges("/tmp/g");
  assert.deepEqual([first.success, first.status], [true, "unchanged"]);
  const quiet = await box.checkChanges("/tmp/g", { since: first.version });
  assert.deepEqual([quiet.status, quiet.version], ["unchanged", first.version]);
  await box.exec("touch /tmp/g/f");
  const changed = await box.checkChanges("/tmp/g", { since: first.version });
  assert.equal(changed.status, "changed");
  assert.equal((await box.checkChanges("/tmp/g", { since: changed.version })).status, "unchanged");
  assert.equal((await box.checkChanges("/tmp/g", { since: "of another agent" })).status, "resync");
});

test("what is left out changes nothing, and who slept has to look again", async () => {
  const own = getSandbox(daemon.connect(), "watch-away");
  await own.mkdir("/workspace/node_modules");
  const { version } = await own.checkChanges("/workspace");
  await own.exec("touch /workspace/node_modules/x");
  assert.equal((await own.checkChanges("/workspace", { since: version })).status, "unchanged");
  // another question, so nobody counted for it
  assert.equal((await own.checkChanges("/workspace", { since: version, exclude: [] })).status, "resync");
  await own.stop();
  assert.equal((await own.checkChanges("/workspace", { since: version })).status, "resync");
  await own.exec("rm -r /workspace/node_modules; mkdir /tmp/gone");
  const before = await own.checkChanges("/tmp/gone");
  await own.exec("rmdir /tmp/gone");
  await assert.rejects(own.checkChanges("/tmp/gone", { since: before.version }), { code: "FILE_NOT_FOUND" });
  await own.destroy();
});

test("the page's program runs as it stands there", async () => {
  const page = await readFile(join(house, "docs/watch.md"), "utf8");
  const dir = await mkdtemp(join(tmpdir(), "atoll-page-"));
  try {
    await writeFile(join(dir, "program.ts"), /```ts\n([^]*?)```/.exec(page)?.[1] ?? "");
    const { code, stdout, stderr } = await atoll("run", join(dir, "program.ts"));
    assert.equal(code, 0, stderr);
    assert.equal(stdout, "watching /workspace\ncreate /workspace/src\ncreate /workspace/src/a.ts\n");
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("the example runs as it is", async () => {
  const { code, stdout, stderr } = await atoll("run", "examples/watch.ts");
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  assert.equal(stdout, "before: failed\nafter a change of /workspace/sum.mjs: passed\n");
});

test("atoll watch prints a line for each event, and ends with the directory", async () => {
  await box.mkdir("/tmp/h", { recursive: true });
  const before = await inotifyHandles();
  const printed = atoll("watch", "watch", "/tmp/h");
  await until("it watches", async () => (await inotifyHandles()) > before);
  await box.exec("mkdir /tmp/h/sub; rmdir /tmp/h/sub; rmdir /tmp/h");
  const { code, stdout, stderr } = await printed;
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  assert.match(stdout, /^create    \/tmp\/h\/sub\/\n(.*\n)*delete    \/tmp\/h\/sub\/\n(.*\n)*stopped   /);
});

test("a daemon that restarts tells that events may be lost, and the watch goes on", async () => {
  await box.mkdir("/tmp/i", { recursive: true });
  await using watch = await collect(box, "/tmp/i");
  await daemon.kill("SIGKILL");
  await daemon.up();
  await until("the loss is told", () => watch.lost());
  await box.exec("touch /tmp/i/f");
  await until("it goes on", () => watch.told().includes("create /tmp/i/f"));
});

test("a watch in which nothing happens lets its sandbox sleep, which stops it", async () => {
  const sleepy = getSandbox(daemon.connect(), "watch-sleepy", { sleepAfter: 1 });
  await using watch = await collect(sleepy, "/workspace");
  await watch.ended;
  const last = watch.events.at(-1);
  assert(last?.type === "stopped" && last.reason.includes("idle"), JSON.stringify(last));
  assert.equal((await sleepy.info()).state, "asleep");
});
