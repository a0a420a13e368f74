import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bindReadOnly, listMounts, mountOverlay, mountTmpfs, unmount } from "./mount.ts";

test("an overlay has exactly the options of the disk format, and a directory of the image can be renamed", async () => {
  await using scratch = await openScratch("lower/dir", "upper", "work", "target");
  const [lower, upper, work, target] = ["lower", "upper", "work", "target"].map(scratch.path) as [
    string,
    string,
    string,
    string,
  ];
  writeFileSync(join(lower, "dir/file"), "image");
  await mountOverlay({ lower, upper, work, target });
  const options = listMounts(target)[0]?.superOptions ?? [];
  for (const option of ["redirect_dir=on", `lowerdir=${lower}`, `upperdir=${upper}`, `workdir=${work}`]) {
    assert.ok(options.includes(option), `${option} in ${options.join(" ")}`);
  }
  // The kernel shows an option only where it differs from its own default.
  for (const option of ["index=on", "metacopy=on", "xino=off", "userxattr", "volatile"])
    assert.ok(!options.includes(option), option);
  renameSync(join(target, "dir"), join(target, "moved"));
  assert.equal(readFileSync(join(target, "moved/file"), "utf8"), "image");
  assert.equal(await unmount(target), "unmounted");
});

test("a tmpfs is bounded in bytes and in files, owned as asked, and holds no programs or devices", async () => {
  await using scratch = await openScratch("link");
  const target = scratch.path("link");
  await mountTmpfs({ target, sizeBytes: 65_536, inodes: 16, uid: 1_900_000_000, gid: 1_900_000_001, mode: 0o700 });
  const { uid, gid, mode } = statSync(target);
  assert.deepEqual([uid, gid, mode & 0o7777], [1_900_000_000, 1_900_000_001, 0o700]);
  assert.throws(() => writeFileSync(join(target, "big"), Buffer.alloc(70_000)), { code: "ENOSPC" });
  assert.throws(() => Array.from({ length: 17 }, (_, i) => mkdirSync(join(target, String(i)))), { code: "ENOSPC" });
  const options = listMounts(target)[0]?.options ?? [];
  for (const option of ["nosuid", "nodev", "noexec"]) assert.ok(options.includes(option), option);
});

test("a read-only bind cannot be written through", async () => {
  await using scratch = await openScratch("source", "target");
  writeFileSync(scratch.path("source/file"), "content");
  await bindReadOnly(scratch.path("source"), scratch.path("target"));
  assert.equal(readFileSync(scratch.path("target/file"), "utf8"), "content");
  assert.throws(() => writeFileSync(scratch.path("target/file"), "other"), { code: "EROFS" });
});

test("unmounting what is not mounted, or not there, is no error", async () => {
  await using scratch = await openScratch("plain");
  assert.equal(await unmount(scratch.path("plain")), "gone");
  assert.equal(await unmount(scratch.path("nothing")), "gone");
});

test("a thousand at once each get their own answer", async () => {
  await using scratch = await openScratch("mounted");
  const target = scratch.path("mounted");
  await mountTmpfs({ target, sizeBytes: 65_536, inodes: 16, uid: 0, gid: 0, mode: 0o700 });
  const answers = await Promise.all(
    Array.from({ length: 1_000 }, (_, i) => unmount(i === 500 ? target : `${target}${i}`)),
  );
  assert.equal(answers.indexOf("unmounted"), 500);
  assert.equal(answers.filter((answer) => answer === "gone").length, 999);
});

test("a mount that is held is waited for, and detached lazily only when asked for and the waiting is over", async () => {
  await using scratch = await openScratch("held");
  const target = scratch.path("held");
  const tmpfs = { target, sizeBytes: 65_536, inodes: 16, uid: 0, gid: 0, mode: 0o700 };

  await mountTmpfs(tmpfs);
  writeFileSync(join(target, "file"), "");
  const holder = await open(join(target, "file"));
  const released = unmount(target, AbortSignal.timeout(10_000));
  await holder.close();
  assert.equal(await released, "unmounted");

  await mountTmpfs(tmpfs);
  writeFileSync(join(target, "file"), "");
  await using _ = await open(join(target, "file"));
  await assert.rejects(unmount(target), /busy/);
  assert.equal(await unmount(target, AbortSignal.abort()), "lazy");
  assert.deepEqual(listMounts(target), []);
});

async function openScratch(...directories: string[]) {
  const root = await mkdtemp(join(tmpdir(), "atoll-mount-"));
  for (const directory of directories) mkdirSync(join(root, directory), { recursive: true });
  return {
    path: (name: string) => join(root, name),
    async [Symbol.asyncDispose]() {
      for (const mount of listMounts(root).reverse()) await unmount(mount.target, AbortSignal.abort());
      await rm(root, { recursive: true });
    },
  };
}
