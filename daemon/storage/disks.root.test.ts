import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../../test/support/until.ts";
import { mountOverlay, unmount } from "../linux/mount.ts";
import { run } from "../linux/run.ts";
import { isNoSpace, openDisks, type Disk, type Disks } from "./disks.ts";
import { destroyGroup } from "./pool.ts";

const MB = 1_000_000;
const EDQUOT = -constants.errno.EDQUOT;
const image = `sha256:${"a".repeat(64)}`;
const uidBase = 1_900_000_000;

type Place = {
  disks: Disks;
  dataDir: string;
  reopen: () => Promise<Disks>;
  mount: (disk: Disk) => Promise<string>;
};

async function place(t: TestContext, sizeBytes = 512 * 1024 * 1024): Promise<Place> {
  const dataDir = await mkdtemp("/var/tmp/atoll-disks-");
  const undo = new AsyncDisposableStack();
  t.after(() => undo.disposeAsync());
  undo.defer(() => run("rm", ["-rf", "--one-file-system", dataDir]).then(() => {}));
  const reopen = () => openDisks({ dataDir, sizeBytes, uidBase });
  const disks = await reopen();
  undo.defer(async () => (await reopen()).end());
  /** What a sandbox would see as its root. */
  const mount = async (disk: Disk) => {
    const lower = join(dataDir, "lower");
    const target = join(dataDir, `root-${disk.id}`);
    await mkdir(lower, { recursive: true });
    await mkdir(target);
    await mountOverlay({ lower, upper: disk.upper, work: disk.work, target });
    undo.defer(() => unmount(target).then(() => {}));
    return target;
  };
  return { disks, dataDir, reopen, mount };
}

/** As many bytes as fit, at most `bytes`; gives the error that ended the writing. */
async function fill(path: string, bytes: number): Promise<NodeJS.ErrnoException | undefined> {
  const file = await open(path, "w");
  try {
    const chunk = Buffer.alloc(MB, 7);
    for (let written = 0; written < bytes; written += chunk.length) await file.write(chunk);
    await file.sync();
    return undefined;
  } catch (error) {
    return error as NodeJS.ErrnoException;
  } finally {
    await file.close();
  }
}

test("a write beyond the limit is refused through the overlay, deleting makes room again, and raising the limit too", async (t) => {
  const { disks, mount } = await place(t);
  const root = await mount(await disks.create("full", { limitBytes: 20 * MB, image }));

  const refused = await fill(join(root, "big"), 100 * MB);
  assert.equal(refused?.errno, EDQUOT);
  assert.ok(isNoSpace(refused));
  const used = await disks.usage("full");
  assert.ok(used > 15 * MB && used <= 20 * MB, `${used} bytes are used`);

  await rm(join(root, "big"));
  assert.equal(await fill(join(root, "small"), 5 * MB), undefined);
  await disks.setLimit("full", 60 * MB);
  assert.equal(await fill(join(root, "bigger"), 40 * MB), undefined);
});

test("one disk's full limit leaves the others their room", async (t) => {
  const { disks, mount } = await place(t);
  const first = await mount(await disks.create("first", { limitBytes: 5 * MB, image }));
  const second = await mount(await disks.create("second", { limitBytes: 50 * MB, image }));
  assert.equal((await fill(join(first, "file"), 10 * MB))?.errno, EDQUOT);
  assert.equal(await fill(join(second, "file"), 20 * MB), undefined);
});

test("a pool that is full says so, and works again when a disk is destroyed", async (t) => {
  const { disks, mount } = await place(t, 256 * 1024 * 1024);
  const greedy = await disks.create("greedy", { limitBytes: 1e12, image });
  const root = await mount(greedy);
  const refused = await fill(join(root, "file"), 1000 * MB);
  assert.equal(refused?.code, "ENOSPC");
  assert.ok(isNoSpace(refused));
  await unmount(root);
  await disks.destroy("greedy");
  await until("a new disk can be written", async () => {
    await disks.destroy("next"); // what an attempt has written fills the pool as well
    const next = await disks.create("next", { limitBytes: 100 * MB, image });
    return (await fill(join(next.upper, "file"), 50 * MB)) === undefined;
  });
});

test("a quota group that the kernel has just removed is no reason not to start", async (t) => {
  const { dataDir } = await place(t);
  await destroyGroup("0/9999", join(dataDir, "pool"));
  await assert.rejects(destroyGroup("0/9999", dataDir), { name: "HostProgramError" });
});

test("the root of a new disk belongs to the sandbox's root", async (t) => {
  const { disks } = await place(t);
  const disk = await disks.create("owned", { limitBytes: 10 * MB, image });
  const { uid, gid, mode } = await stat(disk.upper);
  assert.deepEqual({ uid, gid, mode: mode & 0o7777 }, { uid: uidBase, gid: uidBase, mode: 0o755 });
});

test("a disk is not opened for another image", async (t) => {
  const { disks } = await place(t);
  await disks.create("mine", { limitBytes: 10 * MB, image });
  const other = `sha256:${"b".repeat(64)}`;
  await assert.rejects(disks.open("mine", { image: other }), { code: "VERSION_MISMATCH" });
  assert.equal((await disks.open("mine", { image })).id, "mine");
  assert.equal(await disks.imageOf("mine"), image);
  assert.equal(await disks.imageOf("nobody"), undefined);
});

test("a disk that is there is not replaced, by making or by cloning", async (t) => {
  const { disks, mount, dataDir } = await place(t);
  const root = await mount(await disks.create("kept", { limitBytes: 10 * MB, image }));
  await writeFile(join(root, "word"), "mine");
  await disks.create("other", { limitBytes: 10 * MB, image });
  await assert.rejects(disks.create("kept", { limitBytes: 10 * MB, image }), { code: "ENOTEMPTY" });
  await assert.rejects(disks.clone("other", "kept", { limitBytes: 10 * MB }), { code: "ENOTEMPTY" });
  assert.equal(await readFile(join(root, "word"), "utf8"), "mine");
  assert.deepEqual(await readdir(join(dataDir, "pool/new")), []);
});

test("a clone has the content of a disk in use, its image and a limit of its own, and goes its own way", async (t) => {
  const { disks, mount } = await place(t);
  const root = await mount(await disks.create("parent", { limitBytes: 50 * MB, image }));
  await writeFile(join(root, "word"), "before");
  const clone = await disks.clone("parent", "child", { limitBytes: 10 * MB });
  const cloned = await mount(clone);
  await writeFile(join(root, "word"), "after");
  assert.equal(await readFile(join(cloned, "word"), "utf8"), "before");
  assert.equal(await disks.imageOf("child"), image);
  assert.equal((await fill(join(cloned, "big"), 30 * MB))?.errno, EDQUOT);
  assert.equal(await fill(join(root, "big"), 30 * MB), undefined);
});

test("the name of a destroyed disk is free at once; destroying an unknown one says so", async (t) => {
  const { disks } = await place(t);
  const disk = await disks.create("again", { limitBytes: 50 * MB, image });
  await fill(join(disk.upper, "file"), 20 * MB);
  assert.equal(await disks.destroy("again"), true);
  assert.deepEqual(await disks.list(), []);
  const next = await disks.create("again", { limitBytes: 50 * MB, image });
  assert.deepEqual(await readdir(next.upper), []);
  assert.equal(await disks.destroy("never"), false);
});

test("a name that leads elsewhere is refused", async (t) => {
  const { disks } = await place(t);
  for (const id of ["../new", "a/b", "", ".", "..", "-x", "a\0b"]) {
    await assert.rejects(disks.create(id, { limitBytes: MB, image }), TypeError);
    await assert.rejects(disks.destroy(id), TypeError);
  }
});

test("a pool that btrfs has made read-only stops the start, with the remedy", async (t) => {
  const { dataDir, reopen } = await place(t);
  await run("mount", ["-o", "remount,ro", join(dataDir, "pool")]);
  try {
    await assert.rejects(reopen(), { code: "INTERNAL_ERROR", message: /read-only/, suggestion: /Make room.* unmount/ });
  } finally {
    await run("umount", [join(dataDir, "pool")]);
  }
  await reopen();
});

test("disks outlive the daemon: reopened while mounted, and after the pool was ended", async (t) => {
  const { disks, reopen } = await place(t);
  await disks.create("old", { limitBytes: 10 * MB, image });
  const second = await reopen();
  assert.deepEqual(await second.list(), ["old"]);
  await second.end();
  const third = await reopen();
  assert.deepEqual(await third.list(), ["old"]);
  const disk = await third.open("old", { image });
  assert.equal((await fill(join(disk.upper, "file"), 20 * MB))?.errno, EDQUOT, "the limit is still there");
});

test("what a killed daemon left half made is gone after the next open", async (t) => {
  const { disks, dataDir, reopen } = await place(t);
  await disks.create("whole", { limitBytes: 10 * MB, image });
  await run("btrfs", ["subvolume", "create", join(dataDir, "pool/new/half")]);
  assert.deepEqual(await (await reopen()).list(), ["whole"]);
  assert.deepEqual(await readdir(join(dataDir, "pool/new")), []);
});

test("a pool whose maker was killed before the mount is mounted by the next, through the same loop device", async (t) => {
  const { disks, dataDir, reopen } = await place(t);
  await disks.end();
  const device = (await run("losetup", ["--find", "--show", join(dataDir, "pool.btrfs")])).trim();
  await reopen();
  const devices = (
    await run("losetup", ["--associated", join(dataDir, "pool.btrfs"), "--output", "NAME", "-n"])
  ).trim();
  assert.equal(devices, device);
});

test("daemons that open one data directory at the same time share one mount", async (t) => {
  const { disks, dataDir, reopen } = await place(t);
  await disks.end();
  await Promise.all([reopen(), reopen(), reopen()]);
  const mounts = (await readFile("/proc/self/mountinfo", "utf8")).split("\n").filter((line) => line.includes(dataDir));
  assert.equal(mounts.length, 1);
});

test("kill -9 at any moment of making disks leaves only whole ones", async (t) => {
  const { dataDir, reopen } = await place(t);
  const program = `
    import { openDisks } from ${JSON.stringify(join(import.meta.dirname, "disks.ts"))};
    const disks = await openDisks({ dataDir: ${JSON.stringify(dataDir)}, sizeBytes: 1, uidBase: ${uidBase} });
    process.stdout.write("open");
    for (let n = 0; ; n++) await disks.create(\`\${process.pid}-\${n}\`, { limitBytes: ${10 * MB}, image: ${JSON.stringify(image)} });`;
  for (let round = 0; round < 4; round++) {
    const maker = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(maker.stdout, "data");
    const before = (await readdir(join(dataDir, "pool/disks"))).length;
    await until("it has made one", async () => (await readdir(join(dataDir, "pool/disks"))).length > before + round);
    maker.kill("SIGKILL");
    await once(maker, "close");
    const disks = await reopen();
    for (const id of await disks.list()) assert.equal(await disks.imageOf(id), image);
    assert.deepEqual(await readdir(join(dataDir, "pool/new")), []);
  }
});

test("a run outlives the pool's mount, and the pool is found again through the device that the run keeps", async (t) => {
  const { disks, mount, dataDir, reopen } = await place(t);
  const devices = () => run("losetup", ["--associated", join(dataDir, "pool.btrfs"), "--output", "NAME", "-n"]);
  const root = await mount(await disks.create("used", { limitBytes: 10 * MB, image }));
  const before = await devices();
  await disks.end();
  await writeFile(join(root, "word"), "still here");
  const disk = await (await reopen()).open("used", { image });
  assert.equal(await devices(), before);
  assert.equal(await readFile(join(disk.upper, "word"), "utf8"), "still here");
});

test("ending the pool leaves no mount and no loop device, and the file as it is", async (t) => {
  const { disks, dataDir } = await place(t);
  await disks.create("stays", { limitBytes: 10 * MB, image });
  await disks.end();
  assert.doesNotMatch(await readFile("/proc/self/mountinfo", "utf8"), new RegExp(dataDir));
  await until("the loop device is gone", async () => {
    return (await run("losetup", ["--associated", join(dataDir, "pool.btrfs")])) === "";
  });
  assert.ok((await stat(join(dataDir, "pool.btrfs"))).isFile());
});

test("a data directory on btrfs is used as it is, without a pool file", async (t) => {
  const { dataDir } = await place(t);
  const inner = join(dataDir, "pool/inner");
  const disks = await openDisks({ dataDir: inner, uidBase });
  const disk = await disks.create("one", { limitBytes: 5 * MB, image });
  assert.equal((await fill(join(disk.upper, "file"), 10 * MB))?.errno, EDQUOT);
  assert.deepEqual((await readdir(inner)).sort(), ["pool", "pool.lock"]);
  await disks.end();
  assert.deepEqual(await (await openDisks({ dataDir: inner, uidBase })).list(), ["one"]);
});
