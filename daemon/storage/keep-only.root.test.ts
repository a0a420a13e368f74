import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, link, lstat, mkdir, mkdtemp, readdir, readFile, readlink, rename } from "node:fs/promises";
import { rm, rmdir, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../../test/support/until.ts";
import { mountOverlay, unmount } from "../linux/mount.ts";
import { run } from "../linux/run.ts";
import { type Disk, type Disks, openDisks } from "./disks.ts";

const MB = 1_000_000;
const image = `sha256:${"a".repeat(64)}`;
const limitBytes = 200 * MB;

/** A disk on an image with these files (contents are their paths), which is written through its overlay and then cleared. */
class Place {
  readonly dataDir: string;
  readonly disks: Disks;
  readonly disk: Disk;
  readonly root: string;

  private constructor(dataDir: string, disks: Disks, disk: Disk) {
    [this.dataDir, this.disks, this.disk, this.root] = [dataDir, disks, disk, join(dataDir, "root")];
  }

  static async make(t: TestContext, files: readonly string[] = []): Promise<Place> {
    const dataDir = await mkdtemp("/var/tmp/atoll-keep-");
    const undo = new AsyncDisposableStack();
    t.after(() => undo.disposeAsync());
    undo.defer(() => run("rm", ["-rf", "--one-file-system", dataDir]).then(() => {}));
    const disks = await openDisks({ dataDir, sizeBytes: 1024 * MB, uidBase: 1_900_000_000 });
    undo.defer(() => disks.end());
    const place = new Place(dataDir, disks, await disks.create("box", { limitBytes, image }));
    undo.defer(() => unmount(place.root).then(() => {}));
    await mkdir(place.#lower);
    await mkdir(place.root);
    for (const file of files) {
      await mkdir(dirname(join(place.#lower, file)), { recursive: true });
      await writeFile(join(place.#lower, file), file);
    }
    return place;
  }

  /** Where a file system has no UUID (as this machine's may), overlayfs knows no origins, and shows none of its troubles with them. */
  get #lower(): string {
    return join(this.dataDir, "pool/lower");
  }

  /** One life of a sandbox: what it does to its files. */
  async write(work: (at: (path: string) => string) => Promise<void>): Promise<void> {
    const { upper, work: workDir } = await this.disks.open("box", { image });
    await mountOverlay({ lower: this.#lower, upper, work: workDir, target: this.root, redirects: false });
    try {
      await work((path) => join(this.root, path));
    } finally {
      await unmount(this.root);
    }
  }

  keep(...paths: string[]): Promise<void> {
    return this.disks.keepOnly("box", paths, { limitBytes });
  }

  /** What the next life finds: every file with its content, links with where they lead, empty directories with a slash. */
  async look(): Promise<Record<string, string>> {
    const found: Record<string, string> = {};
    const walk = async (dir: string): Promise<void> => {
      for (const entry of await readdir(join(this.root, dir), { withFileTypes: true })) {
        const path = join(dir, entry.name);
        const full = join(this.root, path);
        if (entry.isDirectory()) {
          if ((await readdir(full)).length === 0) found[`${path}/`] = "";
          else await walk(path);
        } else if (entry.isSymbolicLink()) found[path] = `-> ${await readlink(full)}`;
        else if (entry.isFile()) found[path] = await readFile(full, "utf8");
        else found[path] = "special";
      }
    };
    await this.write(() => walk("/"));
    return found;
  }
}

test("only the named directory and file are kept, all else is the image's", async (t) => {
  const place = await Place.make(t, ["/etc/conf", "/etc/other", "/data/given"]);
  await place.write(async (at) => {
    await mkdir(at("/data/deep/er"), { recursive: true });
    await writeFile(at("/data/deep/er/file"), "mine");
    await rm(at("/data/given"));
    await writeFile(at("/etc/conf"), "changed");
    await writeFile(at("/etc/other"), "changed too");
    await mkdir(at("/home/me"), { recursive: true });
    await writeFile(at("/home/me/junk"), "junk");
    await writeFile(at("/data.txt"), "not inside");
  });
  await place.keep("/data", "/etc/conf", "/not/there", "/data/deep");
  assert.deepEqual(await place.look(), {
    "/data/deep/er/file": "mine",
    "/etc/conf": "changed",
    "/etc/other": "/etc/other",
  });
  assert.deepEqual((await readdir(place.disk.upper)).sort(), ["data", "etc"]);
});

test("what was deleted outside is back, what was deleted inside or is itself named stays deleted", async (t) => {
  const place = await Place.make(t, ["/in/a", "/in/sub/b", "/out/c", "/whole/d", "/named/e", "/named/f"]);
  await place.write(async (at) => {
    await rm(at("/in/a"));
    await rm(at("/in/sub"), { recursive: true });
    await mkdir(at("/in/sub")); // hides the image's
    await rm(at("/out/c"));
    await rm(at("/whole"), { recursive: true });
    await rm(at("/named/e"));
  });
  await place.keep("/in", "/named/e", "/whole/d");
  const expected = { "/in/sub/": "", "/named/f": "/named/f", "/out/c": "/out/c", "/whole/d": "/whole/d" };
  assert.deepEqual(await place.look(), expected);
  await place.keep("/in", "/named/e", "/whole/d");
  assert.deepEqual(await place.look(), expected);
});

test("a parent that was made anew hides nothing of the image but what is kept, and what is kept stays as it was", async (t) => {
  const lower = ["/opt/kept/old", "/opt/file", "/opt/else", "/opt/way/kept/old", "/opt/way/else", "/opt/gone"];
  const place = await Place.make(t, lower);
  await place.write(async (at) => {
    await rm(at("/opt"), { recursive: true });
    await mkdir(at("/opt/kept"), { recursive: true });
    await writeFile(at("/opt/kept/new"), "new");
    await writeFile(at("/opt/file"), "new");
    await mkdir(at("/opt/way/kept"), { recursive: true });
    await writeFile(at("/opt/way/kept/new"), "new");
    await writeFile(at("/opt/junk"), "junk");
  });
  for (let time = 0; time < 2; time++) {
    await place.keep("/opt/kept", "/opt/file", "/opt/way/kept", "/opt/gone");
    assert.deepEqual(await place.look(), {
      "/opt/else": "/opt/else",
      "/opt/file": "new",
      "/opt/kept/new": "new",
      "/opt/way/else": "/opt/way/else",
      "/opt/way/kept/new": "new",
    });
  }
});

test("parents keep owner and mode, and go when nothing is kept in them", async (t) => {
  const place = await Place.make(t, ["/a/b/image"]);
  await place.write(async (at) => {
    await mkdir(at("/a/b/kept"));
    await chmod(at("/a"), 0o1731);
    await chown(at("/a/b"), 1_900_000_007, 1_900_000_008);
    await chmod(at("/a/b"), 0o500);
    await mkdir(at("/odd/way"), { recursive: true, mode: 0o700 });
  });
  await place.keep("/a/b/kept", "/odd/way/nothing");
  await place.write(async (at) => {
    assert.equal((await stat(at("/a"))).mode & 0o7777, 0o1731);
    const { uid, gid, mode } = await stat(at("/a/b"));
    assert.deepEqual([uid, gid, mode & 0o7777], [1_900_000_007, 1_900_000_008, 0o500]);
    assert.deepEqual((await readdir(at("/a/b"))).sort(), ["image", "kept"]);
    assert.deepEqual(await readdir(at("/")), ["a"]);
  });
});

test("no symbolic link is followed: one in the way is removed, one at the end is kept as itself", async (t) => {
  const place = await Place.make(t, ["/image/file"]);
  const host = join(place.dataDir, "host");
  await mkdir(join(host, "dir/sub"), { recursive: true });
  await writeFile(join(host, "file"), "the host's");
  await writeFile(join(host, "dir/sub/file"), "the host's");
  const before = await run("find", [host, "-printf", "%p %i %m %s %T@ %C@\n"]);
  await place.write(async (at) => {
    await symlink(join(host, "dir"), at("/way"));
    await symlink("../host/dir", at("/relative"));
    await symlink(join(host, "file"), at("/last"));
    await symlink(host, at("/lastdir"));
    await mkdir(at("/kept"));
    await symlink(host, at("/kept/link"));
    await mkdir(at("/junk"));
    await symlink(host, at("/junk/link"));
    await rm(at("/image"), { recursive: true });
    await symlink(join(host, "dir"), at("/image"));
  });
  await place.keep("/way/sub", "/relative/sub/file", "/last", "/lastdir", "/kept", "/image/sub", "/last/x");
  assert.deepEqual(await place.look(), {
    "/image/file": "/image/file",
    "/kept/link": `-> ${host}`,
    "/last": `-> ${join(host, "file")}`,
    "/lastdir": `-> ${host}`,
  });
  assert.equal(await run("find", [host, "-printf", "%p %i %m %s %T@ %C@\n"]), before);
});

test("odd names, modes, devices, sockets and hard links are removed or kept like any other", async (t) => {
  const place = await Place.make(t);
  const odd = ["new\nline", "-rf", "*", " ", "ä", "\\"];
  const bytes = Buffer.from([0xff, 0xfe, 0x80]);
  const inOf = (dir: string) => Buffer.concat([Buffer.from(`${dir}/`), bytes]);
  await place.write(async (at) => {
    for (const dir of ["/kept", "/junk", "/kept/new\nline"]) await mkdir(at(dir), { recursive: true });
    for (const dir of ["/kept", "/junk", "/"]) {
      for (const name of odd) if (dir !== "/kept" || name !== "new\nline") await writeFile(at(join(dir, name)), "x");
      await writeFile(inOf(at(dir)), "x", { mode: 0 });
      await run("mknod", [at(`${dir}/device`), "c", "1", "3"]);
      await run("mkfifo", [at(`${dir}/fifo`)]);
    }
    await writeFile(at("/junk/linked"), "linked");
    await link(at("/junk/linked"), at("/kept/linked"));
    await mkdir(at("/junk/locked/in"), { recursive: true });
    await chmod(at("/junk/locked"), 0);
    await chmod(at("/kept"), 0);
  });
  await place.keep("/kept", "/new\nline", "/fifo");
  assert.deepEqual((await readdir(place.disk.upper)).sort(), ["fifo", "kept", "new\nline"]);
  await place.write(async (at) => {
    const names = await readdir(at("/kept"), { encoding: "buffer" });
    assert.equal(names.length, odd.length + 4);
    assert.ok(names.some((name) => name.equals(bytes)));
    assert.equal((await stat(at("/kept"))).mode & 0o7777, 0);
    assert.equal((await stat(at("/kept/linked"))).nlink, 1);
    assert.equal(await readFile(at("/kept/linked"), "utf8"), "linked");
    assert.ok((await lstat(at("/kept/device"))).isCharacterDevice());
  });
});

test("a file of the image that was moved or linked into a kept directory is its own, and the image's is back as it was", async (t) => {
  const place = await Place.make(t, ["/etc/moved", "/etc/linked", "/etc/named", "/etc/pulled"]);
  await place.write(async (at) => {
    await mkdir(at("/kept/deep"), { recursive: true });
    await mkdir(at("/made"));
    await rename(at("/etc/moved"), at("/kept/deep/moved"));
    await link(at("/etc/linked"), at("/kept/linked"));
    await rename(at("/etc/named"), at("/named"));
    await rename(at("/etc/pulled"), at("/made/pulled"));
    await rename(at("/made"), at("/kept/made"));
    for (const path of ["/kept/deep/moved", "/kept/linked", "/named", "/kept/made/pulled"])
      await writeFile(at(path), "changed");
  });
  await place.keep("/kept", "/named");
  const [etc, kept] = [
    ["/etc/moved", "/etc/linked", "/etc/named", "/etc/pulled"],
    ["/kept/deep/moved", "/kept/linked", "/named", "/kept/made/pulled"],
  ];
  // overlayfs mixes two up in the order in which they are looked at
  for (const order of [
    [...etc, ...kept],
    [...kept, ...etc],
  ])
    await place.write(async (at) => {
      for (const path of order) {
        assert.equal(await readFile(at(path), "utf8"), etc.includes(path) ? path : "changed", path);
      }
    });
});

test("directories of the image cannot be renamed on such a disk", async (t) => {
  const place = await Place.make(t, ["/opt/app/file"]);
  await place.write(async (at) => {
    await assert.rejects(rename(at("/opt/app"), at("/app")), { code: "EXDEV" });
    await run("mv", [at("/opt/app"), at("/app")]); // programs copy then
  });
  await place.keep("/app");
  assert.deepEqual(await place.look(), { "/app/file": "/opt/app/file", "/opt/app/file": "/opt/app/file" });
});

test("a tree deeper than any path and one with many files go, and are kept", async (t) => {
  const place = await Place.make(t);
  const levels = 5_000;
  const dig = `import os\nfor _ in range(${levels}):\n  os.mkdir("d"); os.chdir("d")\nopen("bottom", "w").close()`;
  await place.write(async (at) => {
    for (const dir of ["/kept", "/junk"]) {
      await mkdir(at(dir));
      await run("python3", ["-c", dig], { cwd: at(dir) });
      await run("sh", ["-c", "mkdir many; cd many; seq 20000 | xargs touch"], { cwd: at(dir) });
    }
  });
  const before = await place.disks.usage("box");
  await place.keep("/kept");
  assert.deepEqual(await readdir(place.disk.upper), ["kept"]);
  const climb = `import os\nfor _ in range(${levels}): os.chdir("d")\nassert os.path.exists("bottom")`;
  await run("python3", ["-c", climb], { cwd: join(place.disk.upper, "kept") });
  assert.equal((await readdir(join(place.disk.upper, "kept/many"))).length, 20_000);
  // btrfs counts when it commits
  await until("the room is given back", async () => (await place.disks.usage("box")) < before * 0.7);
  // rm of the test's data directory need not do it
  await place.keep("/nothing");
  assert.deepEqual(await readdir(place.disk.upper), []);
});

test("a full disk is cleared too, and has its limit afterwards", async (t) => {
  const place = await Place.make(t, ["/opt/kept/image", "/opt/else"]);
  await place.write(async (at) => {
    await rm(at("/opt"), { recursive: true });
    await mkdir(at("/opt/kept"), { recursive: true });
    await run("sh", ["-c", "head -c 300M /dev/urandom > fill; :"], { cwd: at("/opt/kept") });
    await assert.rejects(writeFile(at("/more"), Buffer.alloc(MB)), { errno: -122 });
  });
  await place.keep("/opt/kept");
  assert.deepEqual(Object.keys(await place.look()), ["/opt/else", "/opt/kept/fill"]);
  // overlayfs mounts a disk read-only when it has no room for its own directory
  const isRefused = ({ errno, code }: NodeJS.ErrnoException) => errno === -122 || code === "EROFS";
  await place.write((at) => assert.rejects(writeFile(at("/more"), Buffer.alloc(MB)), isRefused));
});

test("done once it is not done again until the disk is opened, and other paths are done at once", async (t) => {
  const place = await Place.make(t);
  await place.write(async (at) => {
    for (const dir of ["/one", "/two"]) await mkdir(at(dir));
  });
  await place.keep("/one", "/two");
  await mkdir(join(place.disk.upper, "sentinel"));
  await place.keep("/one", "/two");
  assert.deepEqual((await readdir(place.disk.upper)).sort(), ["one", "sentinel", "two"]);
  await rmdir(join(place.disk.upper, "sentinel"));
  await place.keep("/two");
  assert.deepEqual(await readdir(place.disk.upper), ["two"]);
  await place.write((at) => mkdir(at("/three")));
  await place.keep("/two");
  assert.deepEqual(await readdir(place.disk.upper), ["two"]);
  await place.disks.destroy("box");
  await place.keep("/two"); // nothing is there
});

test("the daemon stands still for none of it, and killed in the middle it is finished by the next", async (t) => {
  const place = await Place.make(t, ["/etc/image"]);
  const fill = (files: number) =>
    place.write(async (at) => {
      await run(
        "sh",
        [
          "-c",
          `mkdir -p kept junk; for d in a b c d; do mkdir -p junk/$d; (cd junk/$d; seq ${files} | xargs touch); done`,
        ],
        {
          cwd: at("/"),
        },
      );
      await writeFile(at("/kept/file"), "mine");
      await rm(at("/etc/image"), { force: true });
    });
  await fill(5_000);
  let beats = 0;
  const heart = setInterval(() => beats++, 1);
  const began = performance.now();
  await place.keep("/kept");
  clearInterval(heart);
  const tookMs = performance.now() - began;
  t.diagnostic(`20,000 files: ${Math.round(tookMs)} ms, ${beats} beats`);
  assert.ok(beats > 10, `${beats} beats in ${tookMs} ms`);

  await fill(10_000);
  const keeper = `
    import { keepOnlyAside } from ${JSON.stringify(join(import.meta.dirname, "keeper.ts"))};
    await keepOnlyAside(${JSON.stringify(place.disk.upper)}, ["/kept"]);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", keeper], { stdio: "ignore" });
  const exit = once(child, "exit");
  const left = async () => (await readdir(join(place.disk.upper, "junk/d")).catch(() => [])).length;
  await until(
    "it is in the middle",
    async () => (await run("find", [join(place.disk.upper, "junk")]).catch(() => "")).split("\n").length < 39_000,
  );
  child.kill("SIGKILL");
  await exit;
  const rest = await left();
  assert.ok(rest > 0, "it was not over yet");
  await sleep(100);
  assert.equal(await left(), rest, "nothing goes on after the kill");
  await place.keep("/kept");
  assert.deepEqual(await place.look(), { "/etc/image": "/etc/image", "/kept/file": "mine" });
});
