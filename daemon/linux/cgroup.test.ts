import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openCgroups } from "./cgroup.ts";
import { weightOf } from "./cgroup-table.ts";

const v1Files = {
  "cpu/G/cpu.shares": "256\n",
  "cpu/G/cpu.cfs_quota_us": "-1\n",
  "cpu/G/cpu.cfs_period_us": "100000\n",
  "cpu/G/cpuacct.usage": "123456789\n",
  "memory/G/memory.usage_in_bytes": "4096\n",
  "memory/G/memory.limit_in_bytes": "1048576\n",
  "memory/G/memory.memsw.limit_in_bytes": "1048576\n",
  "memory/G/memory.stat": "cache 10\ntotal_cache 20\ninactive_file 3\ntotal_inactive_file 2048\n",
  "memory/G/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
  "pids/G/pids.current": "7\n",
  "pids/G/pids.max": "64\n",
  "pids/G/pids.events": "max 3\n",
  "freezer/G/freezer.state": "THAWED\n",
  "devices/G/devices.list": "",
};

const v2Files = {
  "cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma\n",
  "G/cpu.stat": "usage_usec 123456\nuser_usec 100000\nsystem_usec 23456\n",
  "G/cpu.weight": "10\n",
  "G/cpu.max": "max 100000\n",
  "G/memory.current": "4096\n",
  "G/memory.max": "1048576\n",
  "G/memory.swap.max": "max\n",
  "G/memory.stat": "anon 1\nfile 2\ninactive_file 2048\n",
  "G/memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n",
  "G/pids.current": "7\n",
  "G/pids.max": "64\n",
  "G/pids.events": "max 3\n",
  "G/cgroup.kill": "",
  "G/cgroup.freeze": "0\n",
};

const group = "atoll-abcdef/0123456789ab";

/** Debian's and Ubuntu's way of mounting v1: some controllers share one mount. */
const v1Mounts = (root: string) => [
  `1 0 0:1 / ${root}/systemd rw - cgroup cgroup rw,name=systemd`,
  `2 0 0:2 / ${root}/cpu rw - cgroup cgroup rw,cpu,cpuacct`,
  ...["memory", "pids", "freezer", "devices"].map(
    (name, i) => `${i + 3} 0 0:${i + 3} / ${root}/${name} rw - cgroup cgroup rw,${name}`,
  ),
];

const machines = [
  { version: "v1", files: v1Files, mounts: v1Mounts, cpuNs: 123_456_789 },
  {
    version: "hybrid",
    files: { ...v1Files, "unified/cgroup.controllers": "\n" },
    mounts: (root: string) => [...v1Mounts(root), `9 0 0:9 / ${root}/unified rw - cgroup2 cgroup2 rw`],
    cpuNs: 123_456_789,
  },
  {
    version: "v2",
    files: v2Files,
    mounts: (root: string) => [`1 0 0:1 / ${root} rw shared:4 - cgroup2 cgroup2 rw`],
    cpuNs: 123_456_000,
  },
];

for (const { version, files, mounts, cpuNs } of machines) {
  test(`${version}: every number of a group is found where this version keeps it`, async () => {
    await using tree = await openTree(files);
    const cgroups = openCgroups(mounts(tree.root).join("\n"));
    assert.equal(cgroups.version, version);
    assert.deepEqual(cgroups.missing, []);
    const cpu = cgroups.cpuMeter(group);
    assert.deepEqual([cpu.readNs(), cpu.readNs()], [cpuNs, cpuNs]);
    cpu.close();
    assert.equal(cpu.readNs(), undefined);
    assert.equal(cgroups.memoryBytes(group), 4096);
    assert.equal(cgroups.inactiveFileBytes(group), 2048);
    assert.equal(cgroups.memoryLimitBytes(group), 1_048_576);
    assert.equal(cgroups.oomKills(group), 2);
    assert.equal(cgroups.pids(group), 7);
    assert.equal(cgroups.pidsRefused(group), 3);
    assert.deepEqual(cgroups.list("atoll-abcdef"), ["0123456789ab"]);
  });

  test(`${version}: a group that is not there has no numbers, and removing it is no error`, async () => {
    await using tree = await openTree(files);
    const cgroups = openCgroups(mounts(tree.root).join("\n"));
    const readings = ["memoryBytes", "memoryLimitBytes", "oomKills", "pids", "pidsRefused"] as const;
    for (const reading of readings) assert.equal(cgroups[reading]("atoll-abcdef/gone"), undefined, reading);
    assert.equal(cgroups.cpuMeter("atoll-abcdef/gone").readNs(), undefined);
    assert.deepEqual(cgroups.processes("atoll-abcdef/gone"), []);
    assert.deepEqual(cgroups.list("atoll-gone"), []);
    await cgroups.remove("atoll-abcdef/gone");
    cgroups.killAll("atoll-abcdef/gone");
    assert.equal(existsSync(join(tree.root, "atoll-abcdef/gone")), false);
  });

  test(`${version}: a missing controller is named`, async () => {
    await using tree = await openTree({ ...files, "cgroup.controllers": "cpu memory\n" });
    const cgroups = openCgroups(
      mounts(tree.root)
        .filter((line) => !line.endsWith(",pids"))
        .join("\n"),
    );
    assert.deepEqual(cgroups.missing, ["pids"]);
    assert.throws(() => cgroups.setLimits(group, { pids: 1 }), /Cannot limit "atoll-abcdef.*no "pids" controller/);
  });
}

test("v1: limits are written where they belong, and memory with swap is never below memory alone", async () => {
  await using tree = await openTree(v1Files);
  const cgroups = openCgroups(v1Mounts(tree.root).join("\n"));
  cgroups.setLimits(group, { cpuShares: 512, cpuQuotaUs: 25_000, memoryBytes: 2_097_152, pids: 100 });
  assert.deepEqual(tree.read("cpu/G/cpu.shares", "cpu/G/cpu.cfs_period_us", "cpu/G/cpu.cfs_quota_us"), [
    "512",
    "100000",
    "25000",
  ]);
  assert.deepEqual(tree.read("memory/G/memory.limit_in_bytes", "memory/G/memory.memsw.limit_in_bytes"), [
    "2097152",
    "2097152",
  ]);
  assert.deepEqual(tree.read("pids/G/pids.max"), ["100"]);
  cgroups.setLimits(group, { cpuQuotaUs: "max" });
  assert.deepEqual(tree.read("cpu/G/cpu.cfs_quota_us"), ["-1"]);
});

test("v2: limits are written where they belong, and swap stays none", async () => {
  await using tree = await openTree(v2Files);
  const cgroups = openCgroups(`1 0 0:1 / ${tree.root} rw - cgroup2 cgroup2 rw`);
  cgroups.setLimits(group, { cpuShares: 512, cpuQuotaUs: 25_000, memoryBytes: 2_097_152, pids: 100 });
  assert.deepEqual(tree.read("G/cpu.weight", "G/cpu.max", "G/memory.max", "G/memory.swap.max", "G/pids.max"), [
    "20",
    "25000 100000",
    "2097152",
    "0",
    "100",
  ]);
  cgroups.setLimits(group, { cpuQuotaUs: "max" });
  assert.deepEqual(tree.read("G/cpu.max"), ["max 100000"]);
});

test("v1 without swap accounting is seen, and its limits are written all the same", async () => {
  const { "memory/G/memory.memsw.limit_in_bytes": _, ...files } = v1Files;
  await using tree = await openTree(files);
  const cgroups = openCgroups(v1Mounts(tree.root).join("\n"));
  assert.equal(cgroups.swapAccounting, false);
  cgroups.setLimits(group, { memoryBytes: 2_097_152 });
  assert.deepEqual(tree.read("memory/G/memory.limit_in_bytes"), ["2097152"]);
});

test("no limit reads as Infinity in both versions", async () => {
  await using old = await openTree({ ...v1Files, "memory/G/memory.limit_in_bytes": "9223372036854771712\n" });
  await using unified = await openTree({ ...v2Files, "G/memory.max": "max\n" });
  assert.equal(openCgroups(v1Mounts(old.root).join("\n")).memoryLimitBytes(group), Infinity);
  assert.equal(openCgroups(`1 0 0:1 / ${unified.root} rw - cgroup2 cgroup2 rw`).memoryLimitBytes(group), Infinity);
});

test("v2 kills a group by the kernel's own switch; without it the group is frozen and thawed", async () => {
  await using tree = await openTree(v2Files);
  openCgroups(`1 0 0:1 / ${tree.root} rw - cgroup2 cgroup2 rw`).killAll(group);
  assert.deepEqual(tree.read("G/cgroup.kill", "G/cgroup.freeze"), ["1", "0"]);

  const { "G/cgroup.kill": _, ...files } = v2Files;
  await using older = await openTree(files);
  openCgroups(`1 0 0:1 / ${older.root} rw - cgroup2 cgroup2 rw`).killAll(group);
  assert.equal(existsSync(join(older.root, group, "cgroup.kill")), false);
});

test("a machine without any cgroup file system says what to do", () => {
  assert.throws(
    () => openCgroups("1 0 0:1 / / rw - ext4 /dev/vda rw"),
    /Cannot limit sandboxes: no cgroup .* Mount cgroup2/,
  );
});

test("shares become weights as the OCI runtimes do it", () => {
  assert.deepEqual([0, 2, 64, 256, 1024, 262_144, 1_000_000].map(weightOf), [1, 1, 3, 10, 39, 10_000, 10_000]);
});

/** A directory that looks like a mounted hierarchy; G stands for the group. */
async function openTree(files: Record<string, string>) {
  const root = await mkdtemp(join(tmpdir(), "atoll-cgroup-"));
  const pathOf = (name: string) => join(root, name.replace("G", group));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(pathOf(name), ".."), { recursive: true });
    writeFileSync(pathOf(name), text);
  }
  return {
    root,
    read: (...names: string[]) => names.map((name) => readFileSync(pathOf(name), "utf8").trim()),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  };
}
