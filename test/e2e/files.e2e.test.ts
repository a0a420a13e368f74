import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { pack } from "tar-stream";
import { collectFile, getSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";

let daemon: TestDaemon;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  box = getSandbox(daemon.connect(), "files");
});

after(async () => {
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
});

test("what is written is read: text, bytes, base64, a Blob and a stream", async () => {
  const bytes = new Uint8Array([0, 255, 10, 13]);
  for (const [content, expected] of [
    ["ü✓\n", "ü✓\n"],
    ["", ""],
    [new TextEncoder().encode("plain"), "plain"],
    [new Blob(["a", "b"]), "ab"],
    [new Blob(["streamed"]).stream(), "streamed"],
  ] as const) {
    const written = await box.writeFile("/tmp/parents/are/made", content);
    assert.deepEqual([written.success, written.path], [true, "/tmp/parents/are/made"]);
    const read = await box.readFile("/tmp/parents/are/made");
    assert.deepEqual([read.content, read.encoding, read.isBinary], [expected, "utf-8", false]);
  }
  await box.writeFile("/tmp/b.png", Buffer.from(bytes).toString("base64"), { encoding: "base64" });
  const { content, encoding, isBinary, mimeType, size } = await box.readFile("/tmp/b.png");
  assert.deepEqual([content, encoding, isBinary, mimeType, size], ["AP8KDQ==", "base64", true, "image/png", 4]);
  assert.deepEqual((await collectFile(await box.readFileStream("/tmp/b.png"))).content, bytes);
  assert.equal((await collectFile(await box.readFileStream("/tmp/parents/are/made"))).content, "streamed");
});

test("a write replaces the file and keeps its mode, unless it names one", async () => {
  await box.writeFile("/tmp/script", "#!/bin/sh\necho one", { mode: 0o755 });
  await box.writeFile("/tmp/script", "#!/bin/sh\necho two");
  assert.equal((await box.exec("/tmp/script", [])).stdout, "two\n");
  assert.equal((await box.stat("/tmp/script")).mode, "rwxr-xr-x");
  await box.writeFile("/tmp/script", "", { mode: "600" });
  assert.equal((await box.stat("/tmp/script")).mode, "rw-------");
});

test("a relative path starts at the session's directory", async () => {
  await box.exec("mkdir -p /tmp/here && cd /tmp/here");
  await box.writeFile("file", "x");
  assert.equal((await box.stat("/tmp/here/file")).size, 1);
  await box.exec("cd /workspace");
  assert.equal((await box.exists("file")).exists, false);
});

test("64 MiB go in and out as streams, whole", async () => {
  const block = Buffer.alloc(1024 * 1024, "0123456789abcde\n");
  const hash = createHash("sha256");
  let left = 64;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (left-- === 0) return controller.close();
      hash.update(block);
      controller.enqueue(new Uint8Array(block));
    },
  });
  await box.writeFile("/tmp/large", stream);
  const sent = hash.digest("hex");
  assert.equal((await box.exec("sha256sum", ["/tmp/large"])).stdout.slice(0, 64), sent);
  const { content, size } = await box.readFile("/tmp/large", { encoding: "none" });
  const back = createHash("sha256");
  const reader = content.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) back.update(next.value);
  assert.deepEqual([back.digest("hex"), size], [sent, 64 * 1024 * 1024]);
});

test("an upload whose source fails in its middle leaves the old file whole", async () => {
  await box.writeFile("/tmp/kept", "old");
  let pulls = 0;
  const torn = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (pulls++ === 3) throw new Error("torn");
      controller.enqueue(new Uint8Array(100_000));
    },
  });
  await assert.rejects(box.writeFile("/tmp/kept", torn), { message: "torn" });
  assert.equal((await box.readFile("/tmp/kept")).content, "old");
});

test("directories are made, listed, moved and removed", async () => {
  await assert.rejects(box.mkdir("/tmp/d/e/f"), { code: "FILE_NOT_FOUND" });
  await box.mkdir("/tmp/d/e/f", { recursive: true });
  await assert.rejects(box.mkdir("/tmp/d"), { code: "FILE_EXISTS" });
  await box.writeFile("/tmp/d/.hidden", "");
  await box.writeFile("/tmp/d/e/file.txt", "abc");
  await box.exec("ln -s file.txt /tmp/d/e/link");
  const listed = await box.listFiles("/tmp/d");
  assert.deepEqual([listed.count, listed.files.map(({ name }) => name)], [1, ["e"]]);
  const all = await box.listFiles("/tmp/d", { recursive: true, includeHidden: true });
  const paths = all.files.map(({ relativePath, type }) => `${relativePath} ${type}`);
  assert.deepEqual(
    paths.toSorted((a, b) => (a < b ? -1 : 1)),
    [".hidden file", "e directory", "e/f directory", "e/file.txt file", "e/link symlink"],
  );
  const file = all.files.find(({ name }) => name === "file.txt");
  assert.deepEqual([file?.absolutePath, file?.size, file?.permissions.writable], ["/tmp/d/e/file.txt", 3, true]);
  assert.deepEqual((await box.renameFile("/tmp/d/e/file.txt", "/tmp/d/e/g")).newPath, "/tmp/d/e/g");
  await box.moveFile("/tmp/d/e", "/tmp/d/moved");
  assert.equal((await box.readFile("/tmp/d/moved/g")).content, "abc");
  await assert.rejects(box.deleteFile("/tmp/d"), { code: "IS_DIRECTORY" });
  await box.deleteFile("/tmp/d", { recursive: true });
  assert.equal((await box.exists("/tmp/d")).exists, false);
});

test("10,000 files are listed", async () => {
  await box.exec("mkdir -p /tmp/many && cd /tmp/many && seq 10000 | xargs touch && cd /workspace");
  assert.equal((await box.listFiles("/tmp/many")).count, 10_000);
});

test("what cannot be done is told by its code", async () => {
  await assert.rejects(box.readFile("/none"), { code: "FILE_NOT_FOUND" });
  await assert.rejects(box.readFile("/tmp"), { code: "IS_DIRECTORY" });
  await assert.rejects(box.stat("/etc/passwd/x"), { code: "NOT_DIRECTORY" });
  await assert.rejects(box.writeFile("/tmp", "x"), { code: "IS_DIRECTORY" });
  await assert.rejects(box.writeFile("/etc/passwd/x", "x"), { code: "NOT_DIRECTORY" });
  await assert.rejects(box.listFiles("/etc/passwd"), { code: "NOT_DIRECTORY" });
  await assert.rejects(box.readFile("a\0b"), { code: "VALIDATION_FAILED" });
  await assert.rejects(box.readFile(`/${"x".repeat(300)}`), { code: "NAME_TOO_LONG" });
});

test("an archive goes in and comes out", async () => {
  const archive = pack();
  archive.entry({ name: "a.txt", mode: 0o600 }, "alpha");
  archive.entry({ name: "sub/b.txt" }, "beta");
  archive.finalize();
  const parts: Uint8Array[] = [];
  for await (const part of archive) parts.push(part as Uint8Array);
  await box.uploadArchive("/tmp/unpacked", new Blob([Buffer.concat(parts)]).stream());
  assert.equal((await box.readFile("/tmp/unpacked/sub/b.txt")).content, "beta");
  assert.equal((await box.stat("/tmp/unpacked/a.txt")).mode, "rw-------");
  await box.uploadArchive("/tmp/copied", await box.downloadArchive("/tmp/unpacked"));
  assert.equal((await box.exec("diff -r /tmp/unpacked /tmp/copied && echo same")).stdout, "same\n");
});
