import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, readdir, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { pack as startPack, type Header } from "tar-stream";
import { SandboxError } from "../protocol/errors.ts";
import { pack, sizeOf } from "./pack.ts";
import { unpack } from "./unpack.ts";

type Entry = Partial<Header> & { name: string; content?: string };

function archive(...entries: Entry[]): Readable {
  const stream = startPack();
  for (const { content = "", ...header } of entries) stream.entry(header, content);
  stream.finalize();
  return Readable.from(stream as AsyncIterable<Uint8Array>);
}

async function directory(): Promise<AsyncDisposable & { path: string; into: string }> {
  const path = await mkdtemp(join(tmpdir(), "atoll-unpack-"));
  const remove = () => rm(path, { recursive: true, force: true });
  return { path, into: join(path, "into"), [Symbol.asyncDispose]: remove };
}

test("a tree survives being packed and unpacked", async () => {
  await using at = await directory();
  const from = join(at.path, "from");
  await mkdir(join(from, "deep/er"), { recursive: true });
  await mkdir(join(from, "empty"));
  await writeFile(join(from, "deep/er/run"), "#!/bin/sh\n", { mode: 0o755 });
  await writeFile(join(from, "nothing"), "");
  await writeFile(
    join(from, "ünï ❤ and a name that is longer than the hundred bytes of a header field in the old format of tar"),
    "x",
  );
  await symlink("deep/er/run", join(from, "link"));
  await symlink("/nowhere/at/all", join(from, "dangling"));
  assert.equal(await sizeOf(from), 11);

  await unpack(Readable.from(pack(from)), at.into);

  const list = async (path: string) => (await readdir(path, { recursive: true })).sort();
  assert.deepEqual(await list(at.into), await list(from));
  assert.equal(await readFile(join(at.into, "link"), "utf8"), "#!/bin/sh\n");
  assert.equal(await readlink(join(at.into, "dangling")), "/nowhere/at/all");
  assert.equal((await stat(join(at.into, "deep/er/run"))).mode & 0o777, 0o755);
});

test("unpacking over what is there replaces files and follows no link", async () => {
  await using at = await directory();
  const outside = join(at.path, "outside");
  await writeFile(outside, "mine");
  await mkdir(at.into);
  await symlink(outside, join(at.into, "a"));
  await unpack(archive({ name: "a", content: "new" }), at.into);
  assert.equal(await readFile(outside, "utf8"), "mine");
  assert.equal(await readFile(join(at.into, "a"), "utf8"), "new");
});

test("nothing that a hostile stream holds lands outside, and the entry is named", async () => {
  const rows: [Entry[], RegExp][] = [
    [[{ name: "../escaped", content: "x" }], /"..\/escaped": it leads out/],
    [[{ name: "a/../../escaped", content: "x" }], /leads out/],
    [[{ name: "/tmp/atoll-escaped", content: "x" }], /leads out/],
    [[{ name: "dev", type: "block-device", devmajor: 8 }], /it is a block-device/],
    [[{ name: "pipe", type: "fifo" }], /it is a fifo/],
    [[{ name: "hard", type: "link", linkname: "../../../etc/passwd" }], /leads out/],
    [[{ name: "hard", type: "link", linkname: "/etc/passwd" }], /leads out/],
  ];
  for (const [entries, message] of rows) {
    await using at = await directory();
    await assert.rejects(
      unpack(archive(...entries), at.into),
      (error) => SandboxError.is(error) && message.test(error.message),
    );
    assert.deepEqual(await readdir(at.path), ["into"]);
  }
});

test("a file is never written through a link of the same stream, whatever the order", async () => {
  await using at = await directory();
  const stolen = join(at.path, "stolen");
  await mkdir(stolen);
  await unpack(
    archive({ name: "door", type: "symlink", linkname: stolen }, { name: "door/through", content: "x" }),
    at.into,
  ).catch((error: unknown) => assert.ok(error instanceof Error)); // the link cannot take the directory's place
  assert.deepEqual(await readdir(stolen), []);
});

test("a link that was there before is not passed through", async () => {
  await using at = await directory();
  const stolen = join(at.path, "stolen");
  await mkdir(stolen);
  await mkdir(at.into);
  await symlink(stolen, join(at.into, "door"));
  await assert.rejects(unpack(archive({ name: "door/x", content: "x" }), at.into), /is there and is no directory/);
  assert.deepEqual(await readdir(stolen), []);
});

test("set-user-id does not come out of a sandbox", async () => {
  await using at = await directory();
  await unpack(archive({ name: "su", content: "x", mode: 0o6755 }), at.into);
  assert.equal((await stat(join(at.into, "su"))).mode & 0o7777, 0o755);
});

test("a stream that is cut off is an error", async () => {
  await using at = await directory();
  const whole = await new Response(
    Readable.toWeb(archive({ name: "a", content: "x".repeat(5_000) })) as ReadableStream,
  ).bytes();
  await assert.rejects(unpack(Readable.from([whole.subarray(0, 2_000)]), at.into));
});
