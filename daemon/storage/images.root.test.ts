import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { run } from "../linux/run.ts";
import { openImages, type Images } from "./images.ts";

const uidBase = 1_900_000_000;

async function store(t: TestContext): Promise<{ images: Images; storeDir: string }> {
  const storeDir = await mkdtemp("/var/tmp/atoll-store-");
  t.after(() => run("rm", ["-rf", storeDir]));
  return { images: await openImages(storeDir), storeDir };
}

/** A root file system with one of everything. */
async function sampleTree(storeDir: string, word = "hello"): Promise<string> {
  const dir = await mkdtemp(join(storeDir, "sample-"));
  await chmod(dir, 0o755);
  await mkdir(join(dir, "etc"), { mode: 0o755 });
  await mkdir(join(dir, "bin"), { mode: 0o755 });
  await writeFile(join(dir, "etc/word"), word, { mode: 0o644 });
  await symlink("/etc/passwd", join(dir, "etc/out"));
  await writeFile(join(dir, "bin/suid"), "s");
  await chmod(join(dir, "bin/suid"), 0o4755);
  await writeFile(join(dir, "bin/sgid"), "g");
  await chown(join(dir, "bin/sgid"), 0, 42);
  await chmod(join(dir, "bin/sgid"), 0o2755);
  await link(join(dir, "bin/suid"), join(dir, "bin/twin"));
  await writeFile(join(dir, "bin/capable å"), "c", { mode: 0o755 });
  await run("setcap", ["cap_net_bind_service=ep", join(dir, "bin/capable å")]);
  await mkdir(join(dir, "tmp"));
  await chmod(join(dir, "tmp"), 0o1777);
  await writeFile(Buffer.concat([Buffer.from(`${dir}/etc/`), Buffer.from([0xff, 0xfe])]), "no UTF-8");
  return dir;
}

test("an import shifts owners and keeps setuid and setgid bits, the sticky bit, hard links and symbolic links", async (t) => {
  const { images, storeDir } = await store(t);
  const { rootDir } = await images.importTree(await sampleTree(storeDir), "sample");
  const facts = async (name: string) => {
    const { uid, gid, mode, nlink } = await lstat(join(rootDir, name));
    return { uid: uid - uidBase, gid: gid - uidBase, mode: mode & 0o7777, nlink };
  };
  assert.deepEqual(await facts("bin/suid"), { uid: 0, gid: 0, mode: 0o4755, nlink: 2 });
  assert.deepEqual(await facts("bin/sgid"), { uid: 0, gid: 42, mode: 0o2755, nlink: 1 });
  assert.equal((await stat(join(rootDir, "bin/twin"))).ino, (await stat(join(rootDir, "bin/suid"))).ino);
  assert.equal((await facts("tmp")).mode, 0o1777);
  assert.equal((await facts("etc/out")).uid, 0);
  assert.equal((await stat("/etc/passwd")).uid, 0, "the target on the host is untouched");
  assert.equal((await facts("")).mode, 0o755);
});

test("file capabilities hold in the sandbox's user namespace, and only there", async (t) => {
  const { images, storeDir } = await store(t);
  const { rootDir } = await images.importTree(await sampleTree(storeDir), "sample");
  const told = await run("getcap", ["-n", join(rootDir, "bin/capable å")]);
  assert.match(told, new RegExp(`cap_net_bind_service=ep \\[rootid=${uidBase}\\]`));
});

test("equal trees have equal digests and one place in the store; another content, mode or owner is another image", async (t) => {
  const { images, storeDir } = await store(t);
  const first = await images.importTree(await sampleTree(storeDir), "first");
  const second = await images.importTree(await sampleTree(storeDir), "second");
  assert.equal(second.digest, first.digest);
  assert.equal((await readdir(join(storeDir, "images"))).length, 1);

  const changes: ((dir: string) => Promise<void>)[] = [
    (dir) => writeFile(join(dir, "etc/word"), "hullo"),
    (dir) => chmod(join(dir, "etc/word"), 0o600),
    (dir) => chown(join(dir, "etc/word"), 1, 0),
    (dir) => mkdir(join(dir, "etc/more")),
    (dir) => symlink("elsewhere", join(dir, "etc/link")),
    (dir) => run("setcap", ["-r", join(dir, "bin/capable å")]).then(() => {}),
  ];
  const digests = new Set([first.digest]);
  for (const change of changes) {
    const dir = await sampleTree(storeDir);
    await change(dir);
    digests.add((await images.importTree(dir, "changed")).digest);
  }
  assert.equal(digests.size, changes.length + 1);
});

test("a tree with a device, a FIFO or an owner beyond the range is refused and leaves nothing", async (t) => {
  const { images, storeDir } = await store(t);
  const spoil: ((dir: string) => Promise<unknown>)[] = [
    (dir) => run("mknod", [join(dir, "etc/device"), "c", "1", "3"]),
    (dir) => run("mkfifo", [join(dir, "etc/fifo")]),
    (dir) => chown(join(dir, "etc/word"), 70_000, 0),
  ];
  for (const change of spoil) {
    const dir = await sampleTree(storeDir);
    await change(dir);
    await assert.rejects(images.importTree(dir, "spoilt"), /Cannot import/);
  }
  assert.equal(await images.find("spoilt"), undefined);
  assert.deepEqual(await readdir(join(storeDir, "building")), []);
  assert.deepEqual(await readdir(join(storeDir, "images")), []);
});

test("an image is found by name and by digest; a name moves to the newer image and the older stays", async (t) => {
  const { images, storeDir } = await store(t);
  const old = await images.importTree(await sampleTree(storeDir, "old"), "base");
  const next = await images.importTree(await sampleTree(storeDir, "new"), "base");
  assert.equal((await images.find("base"))?.digest, next.digest);
  assert.equal((await images.find(old.digest))?.name, undefined);
  assert.deepEqual((await images.list()).map(({ digest }) => digest).sort(), [old.digest, next.digest].sort());
  assert.equal(await readFile(join(next.rootDir, "etc/word"), "utf8"), "new");
  for (const name of ["../names/base", "nobody", "sha256:12", ""]) assert.equal(await images.find(name), undefined);
});

test("an image that a daemon holds is not removed; when the daemon lets go, or its data directory is gone, it is", async (t) => {
  const { images, storeDir } = await store(t);
  const dataDir = await mkdtemp(join(storeDir, "data-"));
  const { digest } = await images.importTree(await sampleTree(storeDir), "held");
  await images.hold({ tag: "abc123", dataDir }, [digest]);
  await assert.rejects(images.remove("held"), { code: "RESOURCE_BUSY" });
  await images.hold({ tag: "abc123", dataDir }, []);
  await images.hold({ tag: "def456", dataDir: join(storeDir, "gone") }, [digest]);
  await images.remove("held");
  assert.deepEqual(await images.list(), []);
  await assert.rejects(images.remove("held"), { code: "IMAGE_NOT_FOUND" });
  await assert.rejects(images.hold({ tag: "abc123", dataDir }, [digest]), { code: "IMAGE_NOT_FOUND" });
});

test("pruning takes the images that have neither a name nor a holder", async (t) => {
  const { images, storeDir } = await store(t);
  const dataDir = await mkdtemp(join(storeDir, "data-"));
  const [held, free, named] = [
    await images.importTree(await sampleTree(storeDir, "1"), "base"),
    await images.importTree(await sampleTree(storeDir, "2"), "base"),
    await images.importTree(await sampleTree(storeDir, "3"), "base"),
  ];
  await images.hold({ tag: "abc123", dataDir }, [held.digest]);
  assert.deepEqual(await images.prune(), [free.digest]);
  assert.deepEqual((await images.list()).map(({ digest }) => digest).sort(), [held.digest, named.digest].sort());
});

test("a store made for other uids is refused, not used", async (t) => {
  const { images, storeDir } = await store(t);
  await images.importTree(await sampleTree(storeDir), "base");
  const other = await openImages(storeDir, { uidBase: 1_800_000_000 });
  await assert.rejects(other.find("base"), /belong to uids from 1900000000/);
});

test("the sandbox's root can reach the image's files and the bundle, and change neither", async (t) => {
  const { images, storeDir } = await store(t);
  const image = await images.importTree(await sampleTree(storeDir), "base");
  await chmod(storeDir, 0o711);
  const bundle = await images.caBundle(image);
  const asSandboxRoot = (...argv: string[]) =>
    run("setpriv", [`--reuid=${uidBase}`, `--regid=${uidBase}`, "--clear-groups", ...argv]);
  assert.equal(await asSandboxRoot("cat", join(image.rootDir, "etc/word")), "hello");
  assert.match(await asSandboxRoot("cat", bundle), /BEGIN CERTIFICATE/);
  await assert.rejects(asSandboxRoot("touch", bundle), /Permission denied/);
  await assert.rejects(asSandboxRoot("touch", join(image.rootDir, "../more")), /Permission denied/);
});

test("the bundle holds the image's certificates and the host's, each once, and is made again when the host's change", async (t) => {
  const { storeDir } = await store(t);
  const extraCaFile = join(storeDir, "extra.pem");
  const images = await openImages(storeDir, { extraCaFile });
  const [own, company] = await Promise.all([selfSigned(storeDir, "Image"), selfSigned(storeDir, "Company")]);
  const dir = await sampleTree(storeDir);
  await mkdir(join(dir, "etc/ssl/certs"), { recursive: true });
  await writeFile(join(dir, "etc/ssl/certs/ca-certificates.crt"), own + own);
  const image = await images.importTree(dir, "base");

  const before = await images.caBundle(image);
  assert.equal(await images.caBundle(image), before);
  assert.deepEqual(named(await readFile(before, "utf8"), /^CN=(Image|Company)$/), ["CN=Image"]);
  await writeFile(extraCaFile, `# our proxy\n${company}${own}`);
  const after = await images.caBundle(image);
  assert.notEqual(after, before);
  assert.deepEqual(named(await readFile(after, "utf8"), /^CN=(Image|Company)$/), ["CN=Image", "CN=Company"]);
  assert.deepEqual(named(await readFile(before, "utf8"), /^CN=Company$/), [], "what runs keeps what it started with");
});

test("an image whose bundle is a symbolic link to a file of the host's brings no certificates", async (t) => {
  const { images, storeDir } = await store(t);
  const dir = await sampleTree(storeDir);
  await mkdir(join(dir, "etc/ssl/certs"), { recursive: true });
  await symlink("/etc/ssl/certs/ca-certificates.crt", join(dir, "etc/ssl/certs/ca-certificates.crt"));
  const { rootDir } = await images.importTree(dir, "sly");
  assert.equal(await readFile(join(rootDir, "../ca.pem"), "utf8"), "");
});

async function selfSigned(dir: string, name: string): Promise<string> {
  const args = [
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "9",
    "-subj",
    `/CN=${name}`,
  ];
  return await run("openssl", ["req", ...args, "-keyout", join(dir, `${name}.key`)]);
}

function named(bundle: string, pattern: RegExp): string[] {
  const blocks = bundle.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? [];
  return blocks.map((pem) => new X509Certificate(pem).subject).filter((subject) => pattern.test(subject));
}
