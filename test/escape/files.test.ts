import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pack } from "tar-stream";
import { collectFile, SandboxError } from "../../sdk/index.ts";
import { assertWell, type Boxes, openBoxes } from "./boxes.ts";

let boxes: Boxes;
/** A directory of the host that everybody may write, with a secret in it. */
let outside: string;
const undo = new AsyncDisposableStack();

before(async () => {
  outside = await mkdtemp(join(tmpdir(), "atoll-outside-"));
  await chmod(outside, 0o777);
  undo.defer(() => rm(outside, { recursive: true }));
  writeFileSync(join(outside, "secret"), "of the host", { mode: 0o666 });
  mkdirSync(join(outside, "dir"), { mode: 0o777 });
  boxes = await openBoxes();
  undo.defer(() => boxes.close());
  await assertWell(boxes.attacker);
});
after(() => undo[Symbol.asyncDispose]());

function assertUntouched(): void {
  assert.deepEqual(readdirSync(outside).toSorted(), ["dir", "secret"]);
  assert.deepEqual(readdirSync(join(outside, "dir")), []);
  assert.equal(readFileSync(join(outside, "secret"), "utf8"), "of the host");
}

/** Every file verb on this path; gives what each said, an error by its code. */
async function everyVerb(path: string): Promise<Record<string, string>> {
  const box = boxes.attacker;
  const archive = pack();
  archive.entry({ name: "from-archive" }, "x");
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  const calls: Record<string, () => Promise<unknown>> = {
    stat: () => box.stat(path),
    exists: async () => (await box.exists(path)).exists,
    readFile: async () => (await box.readFile(path)).content,
    readFileStream: async () => collectFile(await box.readFileStream(path)),
    downloadArchive: async () => (await new Response(await box.downloadArchive(path)).text()).slice(0, 100),
    listFiles: () => box.listFiles(path),
    mkdir: () => box.mkdir(`${path}/made`),
    writeBelow: () => box.writeFile(`${path}/written`, "x"),
    uploadArchive: () => box.uploadArchive(path, Buffer.concat(chunks)),
    moveInto: async () => {
      await box.writeFile("/tmp/moved", "x");
      await box.moveFile("/tmp/moved", `${path}/moved`);
    },
    writeFile: () => box.writeFile(path, "overwritten"),
    renameFile: async () => {
      await box.renameFile(path, `${path}-renamed`);
      await box.renameFile(`${path}-renamed`, path);
    },
    deleteFile: () => box.deleteFile(path, { recursive: true }),
  };
  const said: Record<string, string> = {};
  for (const [verb, call] of Object.entries(calls)) {
    const timer = AbortSignal.timeout(15_000);
    const late = new Promise<never>((_resolve, reject) =>
      timer.addEventListener("abort", () => reject(new Error(`${verb} hangs`))),
    );
    said[verb] = await Promise.race([call(), late]).then(
      (result) => JSON.stringify(result) ?? "done",
      (error: unknown) => {
        if (SandboxError.is(error)) return error.code;
        throw error;
      },
    );
  }
  return said;
}

test(
  "a path that leads to the host from the host's view leads to nothing, or to the sandbox's own",
  { timeout: 120_000 },
  async () => {
    const inside = await boxes.attacker.exec(`mkdir -p /tmp/own/dir && echo own > /tmp/own/secret`);
    assert.equal(inside.exitCode, 0);
    const control = await everyVerb("/tmp/own/secret");
    assert.match(control["readFile"] ?? "", /own/, "what is inside is read");
    const targets = [
      outside,
      `${outside}/secret`,
      `${"../".repeat(40)}${outside}/secret`,
      `/proc/1/root${outside}/secret`,
      `/proc/self/root/proc/1/cwd/..${outside}/secret`,
      `/run/atoll/link/../../../..${outside}/secret`,
    ];
    for (const [index, target] of targets.entries()) {
      const link = `/workspace/link${index}`;
      for (const path of [target, link]) {
        await boxes.attacker.exec(`rm -rf ${outside}; ln -sfn ${target} ${link}`);
        const said = await everyVerb(path);
        assert.ok(!JSON.stringify(said).includes("of the host"), path);
        assert.notEqual(said["readFile"], "INTERNAL_ERROR", path);
        assertUntouched();
      }
    }
  },
);

test("a hard link to what is the host's cannot be made, and one inside is what it is", async () => {
  const made = await boxes.attacker.exec(
    "for f in /run/atoll/agent /run/atoll/ca.pem /etc/hosts; do ln -L $f /tmp/hard 2>&1; done; echo a > /tmp/a && ln /tmp/a /tmp/b",
  );
  assert.equal(made.stdout.match(/Invalid cross-device link/g)?.length, 3, made.stdout);
  await boxes.attacker.writeFile("/tmp/b", "changed");
  assert.equal((await boxes.attacker.readFile("/tmp/b")).content, "changed");
});

test("pipes, sockets and devices hang no verb", { timeout: 180_000 }, async () => {
  const kinds = {
    "/tmp/odd/fifo": "mkfifo /tmp/odd/fifo",
    "/tmp/odd/socket": `python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/tmp/odd/socket")'`,
    "/tmp/odd/device": "ln -s /dev/zero /tmp/odd/device",
    "/tmp/odd/random": "ln -s /dev/urandom /tmp/odd/random",
    "/tmp/odd/tty": "ln -s /dev/ptmx /tmp/odd/tty",
    "/tmp/odd/loop": "ln -s loop /tmp/odd/loop",
    "/tmp/odd/stdin": "ln -s /proc/1/fd/0 /tmp/odd/stdin",
    "/tmp/odd/memory": "ln -s /proc/1/mem /tmp/odd/memory",
  };
  for (const [path, make] of Object.entries(kinds)) {
    await boxes.attacker.exec(`rm -rf /tmp/odd; mkdir /tmp/odd; ${make}`);
    const said = await everyVerb(path);
    // the kernel itself says EIO of the first page of a process's memory
    const { readFile, readFileStream, ...others } = said;
    assert.ok(!Object.values(others).includes("INTERNAL_ERROR"), `${path}: ${JSON.stringify(said)}`);
    if (path !== "/tmp/odd/memory") assert.ok(![readFile, readFileStream].includes("INTERNAL_ERROR"), path);
    await assertWell(boxes.attacker);
  }
  const list = await boxes.attacker.exec("rm -rf /tmp/odd; mkdir /tmp/odd; mkfifo /tmp/odd/f; ln -s / /tmp/odd/root");
  assert.equal(list.exitCode, 0);
  assert.equal((await boxes.attacker.listFiles("/tmp/odd", { recursive: true })).count, 2, "links are not walked");
});

test("an archive puts nothing outside the directory it is unpacked into", { timeout: 60_000 }, async () => {
  const evil: [Parameters<ReturnType<typeof pack>["entry"]>[0], string?][] = [
    [{ name: "../climbed" }, "x"],
    [{ name: "a/../../climbed" }, "x"],
    [{ name: "/absolute-climbed" }, "x"],
    [{ name: "link", type: "symlink", linkname: "/tmp/elsewhere" }],
    [{ name: "link/climbed" }, "x"],
    [{ name: "hard", type: "link", linkname: "/etc/shadow" }],
    [{ name: "device", type: "character-device", devmajor: 1, devminor: 1 } as never],
    [{ name: "block", type: "block-device", devmajor: 254, devminor: 0 } as never],
  ];
  for (const [header, content] of evil) {
    await boxes.attacker.exec(
      "rm -rf /tmp/into /tmp/elsewhere; mkdir -p /tmp/into /tmp/elsewhere; ln -s /tmp/elsewhere /tmp/into/link",
    );
    const archive = pack();
    archive.entry(header, content ?? "");
    archive.finalize();
    const bytes = Buffer.concat(await Array.fromAsync(archive as AsyncIterable<Buffer>));
    const outcome = await boxes.attacker.uploadArchive("/tmp/into", bytes).then(
      () => "done",
      (error: SandboxError) => error.code,
    );
    const found = await boxes.attacker.exec(
      "ls -d /tmp/climbed /climbed /absolute-climbed /tmp/elsewhere/* 2>/dev/null; find /tmp/into -type c -o -type b; find /tmp/into -samefile /etc/shadow",
    );
    assert.equal(found.stdout, "", `${header.name}: ${outcome}`);
    assert.notEqual(outcome, "INTERNAL_ERROR", header.name);
  }
  assertUntouched();
});

test("a disk that its root has bent starts again, or says why not", { timeout: 90_000 }, async () => {
  const tricks = {
    "mv /run /elsewhere": true,
    "mv /etc /etc2; ln -s /nowhere /etc": false,
    [`rm -rf /workspace; ln -s ${"../".repeat(20)}tmp /workspace`]: true,
    "mknod /tmp/whiteout c 0 0; rm -rf /var/lib/atoll; ln -s / /var/lib/atoll": true,
    "rm /bin/sh /bin/bash /usr/bin/bash": true,
  };
  for (const [trick, starts] of Object.entries(tricks)) {
    const box = boxes.box("bent");
    await box.exec("true");
    await box.exec(trick, { timeout: 20_000 });
    await box.stop();
    const outcome = await box.start().then(
      () => true,
      (error: SandboxError) => error.message,
    );
    if (starts) assert.equal(outcome, true, trick);
    else assert.ok(outcome === true || String(outcome).startsWith("Cannot "), `${trick}: ${outcome}`);
    assert.equal((await box.destroy()).existed, true);
    assertUntouched();
  }
});
