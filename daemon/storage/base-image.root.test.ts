import assert from "node:assert/strict";
import { lstat, mkdtemp, readFile, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { run } from "../linux/run.ts";
import { openImages, type Image } from "./images.ts";

// The real one, in the machine's store, where ./setup has put it.
const images = await openImages("/var/lib/atoll/store");

async function baseImage(): Promise<Image> {
  const image = await images.find("base");
  assert.ok(image, 'there is an image "base": run ./setup');
  return image;
}

/** The image, read-only, with devices: enough to run its programs. */
async function shown(t: TestContext): Promise<(...argv: string[]) => Promise<string>> {
  const { rootDir } = await baseImage();
  const target = await mkdtemp("/var/tmp/atoll-base-");
  const undo = new AsyncDisposableStack();
  t.after(() => undo.disposeAsync());
  undo.defer(() => rmdir(target));
  await run("mount", ["--bind", "-o", "ro", rootDir, target]);
  undo.defer(() => run("umount", ["--recursive", target]).then(() => {}));
  for (const dir of ["dev", "proc"]) await run("mount", ["--bind", `/${dir}`, join(target, dir)]);
  return (...argv) =>
    run("chroot", [target, "env", "-i", "HOME=/root", `PATH=${path}`, "PYTHONDONTWRITEBYTECODE=1", ...argv]);
}

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

test("the base image has what agents type without thinking", async (t) => {
  const inside = await shown(t);
  const programs = [
    ...["bash", "git", "curl", "wget", "less", "file", "rg", "jq", "gcc", "g++", "make", "python3", "pip", "tar", "xz"],
    ...["ps", "node", "npm", "npx", "apt-get", "dpkg", "perl", "patch", "zstd", "find", "grep", "sed", "awk"],
  ];
  const failed = await Promise.all(
    programs.map((program) => inside(program, program === "awk" ? "-W version" : "--version").then(() => "", String)),
  );
  assert.deepEqual(failed.filter(Boolean), []);
  for (const argv of [
    ["ssh", "-V"],
    ["zip", "-v"],
    ["unzip", "-v"],
    ["python3", "-m", "venv", "--help"],
    ["ip", "-V"],
  ]) {
    await inside(...argv);
  }
  assert.match(await inside("node", "--version"), /^v24\./);
  assert.match(await inside("npm", "--version"), /^11\./);
  assert.match(await inside("locale", "-a"), /^C\.utf8$/m);
});

test("in the base image user 1000 may become root, and the setuid bit of sudo has survived the import", async (t) => {
  const inside = await shown(t);
  const { rootDir } = await baseImage();
  const sudo = await lstat(join(rootDir, "usr/bin/sudo"));
  assert.equal(sudo.mode & 0o7777, 0o4755);
  assert.equal(sudo.uid, 1_900_000_000);
  assert.equal((await inside("id", "-u", "user")).trim(), "1000");
  assert.match(await readFile(join(rootDir, "etc/sudoers.d/atoll"), "utf8"), /^user ALL=\(ALL:ALL\) NOPASSWD: ALL$/m);
});

test("programs in the base image find the run's certificates without being told", async () => {
  const { rootDir } = await baseImage();
  const bundle = join(rootDir, "etc/ssl/certs/ca-certificates.crt");
  assert.ok((await lstat(bundle)).isSymbolicLink());
  assert.match(await run("readlink", [bundle]), /^\/run\/atoll\/ca\.pem$/m);
  assert.match(await readFile(join(rootDir, "usr/local/etc/npmrc"), "utf8"), /^cafile=\/run\/atoll\/ca\.pem$/m);
  assert.match(await readFile(join(rootDir, "etc/apt/apt.conf.d/90atoll"), "utf8"), /CaInfo "\/run\/atoll\/ca\.pem"/);
  const certificates = (await readFile(await images.caBundle(await baseImage()), "utf8")).match(/BEGIN CERTIFICATE/g);
  assert.ok((certificates?.length ?? 0) > 100);
});
