import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { getSandbox, type Sandbox, SandboxError } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { until } from "../support/until.ts";
import { collect, follow, type Watched } from "../support/watched.ts";

let daemon: TestDaemon;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  box = getSandbox(daemon.connect(), "trees");
});

after(async () => {
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
});

async function run(script: string): Promise<void> {
  const { exitCode, stderr } = await box.exec(script);
  assert.equal(exitCode, 0, stderr);
}

/** What lies below a directory, but for git's own files. */
async function list(path: string): Promise<string[]> {
  const { stdout } = await box.exec("find", [
    path,
    "-mindepth",
    "1",
    "-name",
    ".git",
    "-prune",
    "-o",
    "-mindepth",
    "1",
    "-print0",
  ]);
  return stdout.split("\0").filter((one) => one && one !== path);
}

/** Who knew the tree as it was and followed the watch knows it as it is, unless a loss was told. */
async function assertFollowed(watch: Watched, path: string, known: Iterable<string> = []): Promise<void> {
  await run(`touch ${path}/end`);
  await until("the end is told", () => watch.told().includes(`create ${path}/end`), 120_000);
  const real = await list(path);
  assert.ok(watch.lost() || real.length > 0);
  if (!watch.lost()) assert.deepEqual([...follow(known, watch.events)].sort(), real.sort());
}

test("who follows a watch through checkouts of a large tree knows the tree", { timeout: 300_000 }, async () => {
  const tree = `import os, sys
which = int(sys.argv[1])
for d in range(300):
  if d % 3 == which: continue
  os.makedirs(f"/workspace/repo/p{d}/src/deep", exist_ok=True)
  for f in range(8):
    for at in ("", "src/", "src/deep/"):
      open(f"/workspace/repo/p{d}/{at}f{f}", "w").write(f"{which} {f % 2 and d}")
`;
  await box.writeFile("/tmp/tree.py", tree);
  await run(`mkdir /workspace/repo; cd /workspace/repo; git init -q; git config user.email a@b; git config user.name a
    for which in 0 1; do
      git rm -rqf --ignore-unmatch . ; git checkout -q --orphan b$which
      python3 /tmp/tree.py $which && git add -A && git commit -qm $which
    done`);
  const known = await list("/workspace/repo");
  await using watch = await collect(box, "/workspace/repo");
  for (const branch of ["b0", "b1", "b0"]) await run(`cd /workspace/repo && git checkout -q ${branch}`);
  await assertFollowed(watch, "/workspace/repo", known);
  assert.ok(watch.lost() || watch.events.length > 10_000, `${watch.events.length} events`);
  assert.deepEqual(
    watch.told().filter((line) => line.includes("/.git")),
    [],
  );
});

test("who follows a watch through npm ci knows every file of node_modules", { timeout: 300_000 }, async () => {
  await box.writeFile(
    "/workspace/app/pack.py",
    `import io, json, tarfile
for p in range(30):
  with tarfile.open(f"p{p}.tgz", "w:gz") as tar:
    files = {f"lib/d{n % 7}/f{n}.js": f"module.exports = {n}" for n in range(400)}
    files["package.json"] = json.dumps({"name": f"p{p}", "version": "1.0.0"})
    for name, text in files.items():
      entry = tarfile.TarInfo("package/" + name)
      entry.size = len(text)
      tar.addfile(entry, io.BytesIO(text.encode()))
json.dump({"name": "app", "version": "1.0.0", "dependencies": {f"p{p}": f"file:p{p}.tgz" for p in range(30)}}, open("package.json", "w"))
`,
  );
  const npm = "npm --offline --no-audit --no-fund --ignore-scripts --loglevel=error";
  await run(`cd /workspace/app && python3 pack.py && ${npm} install --package-lock-only`);
  const known = await list("/workspace/app");
  await using watch = await collect(box, "/workspace/app", { exclude: [] });
  await run(`cd /workspace/app && ${npm} ci`);
  await assertFollowed(watch, "/workspace/app", known);
  const told = new Set(watch.told());
  assert.ok(watch.lost() || (told.has("create /workspace/app/node_modules/p29/lib/d1/f1.js") && told.size > 12_000));
});

test("directories that are renamed, in and out and within, are told with what is in them", async () => {
  await run("mkdir -p /tmp/r/one/two /tmp/outside; touch /tmp/r/one/two/f; mkdir /tmp/r/other");
  const known = await list("/tmp/r");
  await using watch = await collect(box, "/tmp/r");
  await run(`cd /tmp/r
    mv one other/uno; touch other/uno/two/g; mv other/uno/two dos; touch dos/h; mv dos other/uno/two; mv other/uno one
    mv one ../outside/one; touch ../outside/one/unseen; mv ../outside/one back; touch back/two/i; mv other ../outside`);
  await assertFollowed(watch, "/tmp/r", known);
  const told = watch.told().filter((line) => !line.startsWith("attrib"));
  assert.ok(told.includes("create /tmp/r/back/two/g"), "a tree that comes is told with its content");
  assert.ok(told.includes("create /tmp/r/back/unseen"));
  assert.ok(told.includes("move_from /tmp/r/other"));
});

test("a watched directory that is renamed, or one above it, stops its watch", async () => {
  await run("mkdir -p /tmp/up/root /tmp/kept");
  await using watch = await collect(box, "/tmp/up/root");
  await run("mv /tmp/up /tmp/upper");
  await watch.ended;
  const last = watch.events.at(-1);
  assert.ok(last?.type === "stopped" && /moved/.test(last.reason), JSON.stringify(last));
});

test("any name is told as it is, one that is no UTF-8 with U+FFFD", async () => {
  const names = [
    "ünïcödé",
    "u\u0308",
    "ü",
    "日本語 😀",
    "new\nline",
    "\t",
    '"\\',
    "-rf",
    " ",
    "a*?[b]{c}",
    "x".repeat(255),
  ];
  await run("mkdir /tmp/n");
  await using watch = await collect(box, "/tmp/n");
  const make = `import json, os, sys
for name in json.loads(sys.argv[1]):
  os.mkdir("/tmp/n/" + name)
  open("/tmp/n/" + name + "/" + name, "x").close()
os.mkdir(b"/tmp/n/bad\\xff")
open(b"/tmp/n/bad\\xff/\\xfe", "x").close()`;
  assert.equal((await box.exec("python3", ["-c", make, JSON.stringify(names)])).exitCode, 0);
  const want = [...names.flatMap((name) => [name, `${name}/${name}`]), "bad\ufffd", "bad\ufffd/\ufffd"];
  await until("the last is told", () => watch.told().includes("create /tmp/n/bad\ufffd/\ufffd"));
  const created = watch.told().filter((line) => line.startsWith("create"));
  assert.deepEqual(created.sort(), want.map((name) => `create /tmp/n/${name}`).sort());
});

test("links are told and not followed; a watch may be set by one", async () => {
  await run("mkdir -p /tmp/l/real /tmp/aside; ln -s /tmp/l /tmp/by");
  await using watch = await collect(box, "/tmp/by");
  await run(
    "cd /tmp/l; ln -s /tmp/aside out; ln -s . loop; ln -s nowhere dangling; touch out/unseen real/seen; rm out; touch end",
  );
  await until("the end is told", () => watch.told().includes("create /tmp/by/end"));
  const told = watch.told().filter((line) => !line.startsWith("attrib"));
  assert.deepEqual(told, [
    "create /tmp/by/out",
    "create /tmp/by/loop",
    "create /tmp/by/dangling",
    "create /tmp/by/real/seen",
    "delete /tmp/by/out",
    "create /tmp/by/end",
  ]);
});

test("one watch too many is refused with the number, and there is place again when one has ended", async () => {
  const own = getSandbox(daemon.connect(), "many-watches");
  await using open = new AsyncDisposableStack();
  const streams: ReadableStream[] = [];
  open.defer(async () => void (await Promise.all(streams.map((one) => one.cancel()))));
  for (let count = 0; count < 256; count++) streams.push(await own.watch("/workspace"));
  const tooMany = (error: unknown) => SandboxError.is(error, "LIMIT_REACHED") && /256/.test((error as Error).message);
  await assert.rejects(own.watch("/workspace"), tooMany);
  await streams.pop()!.cancel();
  await until("there is place again", async () => streams.push(await own.watch("/workspace")));
});
