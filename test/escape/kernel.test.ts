import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { after, before, test } from "node:test";
import { run } from "../../daemon/linux/run.ts";
import { attack, assertWell, type Boxes, hostPids, openBoxes, sourceOf } from "./boxes.ts";

type Said = Record<string, string>;

let boxes: Boxes;
before(async () => {
  boxes = await openBoxes();
});
after(() => boxes.close());

/** What a probe that works where it may says first, so that the refusals below it mean something. */
function assertControls(said: Said): void {
  const controls = Object.entries(said).filter(([name]) => name.startsWith("control: "));
  assert.ok(controls.length > 0, "the program has a control");
  for (const [name, outcome] of controls) assert.equal(outcome, "done", name);
}

function assertRefused(said: Said, expected: RegExp, which = /^(?!control: )/): void {
  assertControls(said);
  const tried = Object.entries(said).filter(([name]) => which.test(name) && !name.startsWith("control: "));
  assert.ok(tried.length > 0);
  assert.deepEqual(
    tried.filter(([, outcome]) => !expected.test(outcome)),
    [],
  );
}

test("system calls that lead out are refused by the filter, before the kernel has looked at them", async () => {
  const inside = await attack<Said>(boxes.attacker, "calls.py");
  const { image } = await boxes.attacker.info();
  // The same program in the same image, without a sandbox around it: there the kernel itself answers.
  const root = `${process.env["ATOLL_STORE_DIR"] ?? "/var/lib/atoll/store"}/images/${image.digest.replace(/^sha256:/, "")}/root`;
  const outside = JSON.parse(await run("chroot", [root, "python3", "-B", "-c", await sourceOf("calls.py")])) as Said;
  const { getpid, memfd_create: memfd, openat, clone3, process_vm_readv: readv, ...refused } = inside;
  assert.deepEqual([getpid, memfd, openat], ["done", outside["memfd_create"], outside["openat"]], "others get through");
  assert.equal(clone3, "ENOSYS", "C libraries then use clone, whose flags a filter can see");
  assert.match(readv ?? "", /^(EPERM|ENOSYS|EINVAL|EFAULT)$/, "within a sandbox debuggers may");
  assert.deepEqual(
    Object.entries(refused).filter(([, outcome]) => outcome !== "EPERM" && outcome !== "ENOSYS"),
    [],
  );
  const alike = Object.keys(refused).filter((name) => outside[name] === inside[name]);
  assert.deepEqual(alike, [], "outside each of them is looked at");
});

test("no namespace is made or joined", async () => {
  assertRefused(await attack<Said>(boxes.attacker, "tries.py", ["namespaces"]), /^(EPERM|EACCES)$/);
});

test("nothing is mounted, unmounted or climbed out of", async () => {
  assertRefused(await attack<Said>(boxes.attacker, "tries.py", ["mounts"]), /^(EPERM|EXDEV)$/);
});

test("no device is made or opened, and the shared ones are not changed", async () => {
  const hosts = () => ["null", "zero", "tty", "urandom"].map((name) => statSync(`/dev/${name}`).mode);
  const before = hosts();
  assertRefused(
    await attack<Said>(boxes.attacker, "tries.py", ["devices"]),
    /^(EPERM|EACCES|ENOENT|ENXIO|EROFS|EBUSY|ENODEV)$/,
  );
  assert.deepEqual(hosts(), before);
});

test("the agent's program, certificates and names cannot be written, linked, moved or removed", async () => {
  const agents = () => hashOf(`/proc/${hostPids(boxes.daemon, "/run/atoll/agent")[0]}/exe`);
  await assertWell(boxes.attacker);
  const before = agents();
  assertRefused(
    await attack<Said>(boxes.attacker, "tries.py", ["runtime"]),
    /^(EROFS|EBUSY|EXDEV|ETXTBSY|EPERM|EACCES|EOPNOTSUPP)$/,
  );
  assert.equal(agents(), before);
});

test("no setting of the machine can be written, and what tells of the kernel's memory is empty", async () => {
  const said = await attack<Said>(boxes.attacker, "tries.py", ["settings"]);
  const { "settings looked at": looked, ...rest } = said;
  assert.ok(Number(looked) > 200, "there were many to try");
  assertRefused(rest, /^(EROFS|EPERM|EACCES|ENOENT|EIO|empty)$/);
});

test("sockets of other families and raw ones are refused", async () => {
  assertRefused(await attack<Said>(boxes.attacker, "tries.py", ["sockets"]), /^(EAFNOSUPPORT|ENOSYS|EPERM)$/);
});

test("the agent holds nothing of the host open that somebody inside could take over", async () => {
  const { stdout } = await boxes.attacker.exec(
    "readlink /proc/1/fd/* /proc/1/cwd /proc/1/root; ls -d /proc/1/root/run/netns",
    {
      stderr: "merge",
    },
  );
  const links = stdout.split("\n").filter(Boolean);
  assert.ok(links.length > 5);
  assert.match(links.pop() ?? "", /No such file/, "the agent's root is the sandbox's");
  for (const link of links)
    assert.match(link, /^(\/dev\/null|\/|\/memfd:script \(deleted\)|(pipe|socket|anon_inode):\[?\w+\]?)$/);
});

test("a capability that is kept does nothing to what belongs to the host", async () => {
  const { stdout } = await boxes.attacker.exec("grep Cap /proc/self/status; grep -h NoNewPrivs /proc/self/status");
  assert.match(stdout, /CapEff:\t00000000a80405fb/i, "Docker's set without NET_RAW");
  assert.match(stdout, /CapBnd:\t00000000a80405fb/i);
  assert.match(stdout, /NoNewPrivs:\t1/);
});

function hashOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}
