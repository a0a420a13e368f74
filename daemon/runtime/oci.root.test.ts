import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync, readlinkSync, readdirSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { until } from "../../test/support/until.ts";
import { killAndWait, stateOf } from "../linux/process.ts";
import { limitUserNamespace } from "../linux/userns.ts";
import { explainExit, explainLimits } from "./exit.ts";
import { openBox } from "./probe/box.ts";
import type { Box } from "./probe/box.ts";
import { refusals } from "./seccomp.ts";

type Look = {
  look: Record<string, string> & { status: Record<string, string>; env: string[]; args: string[]; pid: number };
};

test("a run seen from inside", async (t) => {
  await using box = await openBox(["look", "try", "budgets", "stay"], { cpuBurst: false });
  const process = await box.create();
  await limitUserNamespace(process.pid, { userNamespaces: 0, inotifyInstances: 77, inotifyWatches: 7777 });
  const hostSide = Object.fromEntries(
    ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].map((kind) => [
      kind,
      readlinkSync(`/proc/${process.pid}/ns/${kind}`),
    ]),
  );
  await box.runtime.start(box.run, process);
  const {
    look,
    try: said,
    budgets,
  } = await box.answers<Look & { try: Record<string, string>; budgets: Record<string, string> }>();
  const stdio = readdirSync(`/proc/${process.pid}/fd`).map((fd) => readlinkSync(`/proc/${process.pid}/fd/${fd}`));
  const seen = (name: string) => look[name] as string;
  const mounts = seen("/proc/self/mountinfo").trim().split("\n");
  const mountAt = (target: string) => mounts.filter((line) => line.split(" ")[4] === target).at(-1) ?? "";
  const list = (name: string) => look[name] as unknown as string[];

  await t.test("it is PID 1 with the arguments and the small environment we gave", () => {
    assert.equal(look.pid, 1);
    assert.deepEqual(look.args, ["/run/atoll/agent", "look", "try", "budgets", "stay"]);
    assert.deepEqual(new Set(look.env.map((entry) => entry.split("=")[0])), new Set(["HOME", "PATH"]));
    assert.equal(seen("hostname"), "box");
  });

  await t.test("every namespace is its own, the network's is the one of the host that was named", () => {
    for (const kind of ["cgroup", "ipc", "mnt", "pid", "user", "uts"]) {
      assert.equal(seen(`ns/${kind}`), hostSide[kind]);
      assert.notEqual(seen(`ns/${kind}`), readlinkSync(`/proc/self/ns/${kind}`), kind);
    }
    assert.equal(seen("ns/net"), `net:[${statSync(box.netnsFile).ino}]`);
  });

  await t.test("its ids are shifted beyond everybody else's", () => {
    assert.deepEqual(seen("/proc/self/uid_map").trim().split(/\s+/), ["0", "1900000000", "65536"]);
    assert.deepEqual(seen("/proc/self/gid_map").trim().split(/\s+/), ["0", "1900000000", "65536"]);
  });

  await t.test("it holds Docker's capabilities without NET_RAW, no new privileges, and a filter", () => {
    const held = "00000000a80405fb".replace(/.*/, (hex) =>
      (BigInt(`0x${hex}`) & ~(1n << 13n)).toString(16).padStart(16, "0"),
    );
    assert.deepEqual(look.status, {
      CapBnd: held,
      CapEff: held,
      CapPrm: held,
      CapInh: "0".repeat(16),
      CapAmb: "0".repeat(16),
      NoNewPrivs: "1",
      Seccomp: "2",
    });
  });

  await t.test("no descriptor of the host came along but /dev/null", () => {
    assert.deepEqual(
      stdio.filter((target) => !/^(anon_inode|pipe|socket):/.test(target) && target !== "/dev/null"),
      [],
    );
  });

  await t.test("its limits are those of the spec, within what the daemon may give", () => {
    const limit = (name: string) =>
      new RegExp(`^${name} +(\\S+) +(\\S+)`, "m").exec(seen("/proc/self/limits"))?.slice(1);
    const files = String(box.spec.process.rlimits.find(({ type }) => type === "RLIMIT_NOFILE")?.hard);
    assert.deepEqual(limit("Max open files"), [files, files]);
    assert.deepEqual(limit("Max core file size"), ["1", "1"]);
    assert.equal(Number(seen("/proc/self/oom_score_adj")), box.spec.process.oomScoreAdj);
  });

  await t.test("the budgets of its user namespace are its own, and it cannot make another", () => {
    assert.equal(seen("/proc/sys/user/max_user_namespaces").trim(), "0");
    assert.equal(seen("/proc/sys/user/max_inotify_instances").trim(), "77");
    assert.equal(seen("/proc/sys/user/max_inotify_watches").trim(), "7777");
    assert.equal(budgets["inotify instances"], "77 then EMFILE");
    assert.equal(budgets.terminals, "256 then ENOSPC");
    assert.equal(budgets["bytes in the link directory"], "ENOSPC");
  });

  await t.test(
    "/sys holds nothing but its own group, read-only, with the limits that programs size themselves by",
    () => {
      assert.deepEqual(list("/sys/"), ["fs"]);
      assert.deepEqual(list("/sys/fs/"), ["cgroup"]);
      assert.match(mountAt("/sys"), / ro,/);
      assert.match(mountAt("/sys/fs/cgroup"), / ro,/);
      const first = (...names: string[]) =>
        names
          .map(seen)
          .find((text) => !text.startsWith("error"))
          ?.trim();
      assert.equal(
        first("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"),
        String(128 * 1024 ** 2),
      );
      assert.equal(first("/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max"), "64");
      assert.match(first("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max") ?? "", /^50000/);
      for (const line of seen("/proc/self/cgroup").trim().split("\n")) assert.match(line, /:\/$/);
    },
  );

  await t.test("what tells of the host under /proc is masked", () => {
    for (const file of ["/proc/keys", "/proc/timer_list", "/proc/interrupts"])
      assert.match(seen(file), /^(error: ENOENT)?$/, file);
    assert.match(seen("/proc/kcore"), /^(error: ENOENT)?$/);
  });

  await t.test("/dev is small and holds only harmless nodes; shared memory is half the memory", () => {
    const usual = [
      "fd",
      "full",
      "mqueue",
      "null",
      "ptmx",
      "pts",
      "random",
      "shm",
      "stderr",
      "stdin",
      "stdout",
      "tty",
      "urandom",
      "zero",
    ];
    assert.deepEqual(
      list("/dev/").filter((name) => !usual.includes(name) && name !== "core"),
      [],
    );
    assert.equal(look["/dev/shm bytes"] as unknown, 64 * 1024 ** 2);
    assert.match(mountAt("/dev/pts"), /max=256/);
  });

  await t.test("the run's own files are there, and the link directory is the bounded tmpfs", () => {
    assert.equal(seen("/etc/hosts"), "the run's hosts\n");
    assert.equal(seen("/etc/hostname"), "the run's hostname\n");
    assert.equal(seen("/etc/resolv.conf"), "the run's resolv.conf\n");
    assert.equal(seen("/run/atoll/ca.pem"), "certificates\n");
    assert.deepEqual(list("/run/atoll/"), ["agent", "ca.pem", "link"]);
    assert.match(mountAt("/run/atoll/link"), /nosuid,nodev,noexec.* tmpfs .*size=64k,nr_inodes=16/);
    assert.equal(look["/run/atoll/link bytes"] as unknown, 65_536);
  });

  for (const [name, reason] of refusals) {
    if (said[name] === undefined) continue;
    // A name younger than the machine's libseccomp has no rule there, and falls to the profile's default.
    await t.test(`${name} is refused: ${reason}`, () =>
      assert.match(said[name] ?? "", name === "open_tree_attr" ? /^(EPERM|ENOSYS)$/ : /^EPERM$/),
    );
  }

  await t.test("every refusal has been tried", () => {
    const untried = [...refusals.keys()].filter((name) => said[name] === undefined);
    // umount (without flags) exists on 32-bit machines only.
    assert.deepEqual(untried, ["umount"]);
  });

  await t.test("clone with a namespace flag is EPERM, clone3 ENOSYS; threads and processes still start", () => {
    const clones = Object.entries(said).filter(([name]) => name.startsWith("clone "));
    assert.equal(clones.length, 8);
    for (const [name, answer] of clones) assert.equal(answer, "EPERM", name);
    assert.equal(said.clone3, "ENOSYS");
    assert.equal(said.threads, "done");
    assert.equal(said["child process"], "done");
  });

  await t.test(
    "sockets are unix, IPv4, IPv6 and netlink; the hypervisor's and the kernel's own are not to be had",
    () => {
      for (const family of ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"])
        assert.equal(said[`socket ${family}`], "done", family);
      for (const family of ["AF_PACKET", "AF_ALG", "AF_VSOCK", "AF_XDP"])
        assert.equal(said[`socket ${family}`], "EAFNOSUPPORT", family);
      assert.equal(said["raw socket"], "EPERM");
    },
  );

  await t.test("device nodes are refused, also in /dev", () => {
    for (const name of ["mknod block device", "mknod mem", "mknod in /dev"]) assert.equal(said[name], "EPERM", name);
  });

  await t.test("nothing of the kernel's or the run's can be written, removed or added to", () => {
    const entries = Object.entries(said).filter(([name]) => /^(write|remove|make) /.test(name));
    assert.ok(entries.length > 18);
    for (const [name, answer] of entries) assert.match(answer, /^(EACCES|EPERM|EROFS|EBUSY|ENOENT)$/, name);
  });

  await t.test("what a computer's root does all day works", () => {
    for (const name of ["chown", "mkfifo", "chroot"]) assert.equal(said[name], "done", name);
    assert.equal(said["chown beyond the map"], "EINVAL");
    assert.equal(said.sethostname, "EPERM");
    assert.equal(said["more open files"], "EPERM");
    assert.match(said["nice -5"] ?? "", /^(EACCES|EPERM)$/);
  });

  await t.test("the agent's mount points are not on the disk", () => {
    assert.deepEqual(readdirSync(join(box.runDir, "root/run/atoll")), []);
  });
});

test("a process that takes more memory than the limit is killed, counted and told; the agent goes on", async () => {
  await using box = await openBox(["memory", "stay"]);
  const process = await box.create();
  await box.runtime.start(box.run, process);
  const { memory } = await box.answers<{ memory: string }>();
  assert.match(memory, /signal: killed/);
  const oomKills = box.cgroups.oomKills(box.group) ?? 0;
  assert.equal(oomKills, 1);
  assert.equal(stateOf(process), "alive");
  assert.deepEqual(
    explainLimits(
      { oomKills: 0, pidsRefused: 0 },
      { oomKills, pidsRefused: 0 },
      { memoryBytes: 128 * 1024 ** 2, pids: 64 },
    ),
    ["One process was killed because the sandbox reached its memory limit of 128 MiB"],
  );
  assert.equal(explainExit({ otherBoot: false, oomKills, memoryLimitBytes: 1 }).reason, "memory");
});

test("no more processes than the limit are started, and the refusal is counted", async () => {
  await using box = await openBox(["pids", "stay"], { pids: 40 });
  const process = await box.create();
  await box.runtime.start(box.run, process);
  const { pids } = await box.answers<{ pids: string }>();
  assert.match(pids, /^\d+ then EAGAIN done$/);
  assert.ok(Number.parseInt(pids) < 40, pids);
  assert.ok((box.cgroups.pidsRefused(box.group) ?? 0) >= 1);
});

test("limits of a run can be changed while it runs, up and down, and are read back", async () => {
  await using box = await openBox(["stay"]);
  const process = await box.create();
  await box.runtime.start(box.run, process);
  for (const memoryBytes of [64, 512, 32].map((mebibytes) => mebibytes * 1024 ** 2)) {
    box.cgroups.setLimits(box.group, { memoryBytes, cpuShares: 512, cpuQuotaUs: "max", pids: 100 });
    assert.equal(box.cgroups.memoryLimitBytes(box.group), memoryBytes);
  }
  assert.ok((box.cgroups.memoryBytes(box.group) ?? 0) > 0);
  assert.ok((box.cgroups.pids(box.group) ?? 0) >= 1);
  assert.ok((box.cgroups.inactiveFileBytes(box.group) ?? -1) >= 0);
  assert.deepEqual(box.cgroups.processes(box.group), [process.pid]);
});

test("deleting a run leaves no group in any hierarchy and no state, and can be said twice", async () => {
  await using box = await openBox(["stay"]);
  const process = await box.create();
  await box.runtime.start(box.run, process);
  await box.answers();
  const cpu = box.cgroups.cpuMeter(box.group);
  assert.ok((cpu.readNs() ?? 0) > 0);
  assert.deepEqual(box.cgroups.list(`atoll-${box.tag}`), [box.run]);
  await killAndWait(process);
  for (const _ of [1, 2]) {
    await box.runtime.delete(box.run, box.group, AbortSignal.timeout(10_000));
    assert.deepEqual(await box.runtime.list(), []);
    assert.deepEqual(box.cgroups.list(`atoll-${box.tag}`), []);
    assert.equal(cpu.readNs(), undefined);
  }
  cpu.close();
});

test("killing the group ends every process of the run", async () => {
  await using box = await openBox(["stay"]);
  const process = await box.create();
  await box.runtime.start(box.run, process);
  await box.answers();
  box.cgroups.killAll(box.group);
  await until("the agent has ended", () => stateOf(process) !== "alive");
  await box.cgroups.remove(box.group, AbortSignal.timeout(10_000));
});

test("a run that was created and never started is found and cleared", async () => {
  await using box = await openBox(["stay"]);
  const process = await box.create();
  assert.deepEqual(await box.runtime.list(), [box.run]);
  assert.deepEqual(await box.runtime.recover(`atoll-${box.tag}`, new Set([box.run])), []);
  assert.equal(stateOf(process), "alive");
  assert.deepEqual(await box.runtime.recover(`atoll-${box.tag}`, new Set(), AbortSignal.timeout(10_000)), [box.run]);
  assert.notEqual(stateOf(process), "alive");
  assert.deepEqual(await box.runtime.list(), []);
  assert.deepEqual(box.cgroups.list(`atoll-${box.tag}`), []);
});

test("a creation that was cut off anywhere is cleared, with the runtime that was still at work", async () => {
  const moments: Record<string, (box: Box) => boolean> = {
    "at once": () => true,
    "when the runtime has a directory": (box) => existsSync(join("/run/atoll", box.tag, "runc", box.run)),
    "when the group is there": (box) => box.cgroups.list(`atoll-${box.tag}`).length > 0,
    "when a process is in the group": (box) => box.cgroups.processes(box.group).length > 0,
    "when the gate is there": (box) => existsSync(join("/run/atoll", box.tag, "runc", box.run, "exec.fifo")),
    "when the pid is written": (box) => existsSync(join(box.bundleDir, "pid")),
  };
  for (const [moment, reached] of Object.entries(moments)) {
    await using box = await openBox(["stay"]);
    await writeFile(join(box.bundleDir, "config.json"), JSON.stringify(box.spec));
    const root = join("/run/atoll", box.tag, "runc");
    const args = [
      "--root",
      root,
      "create",
      "--bundle",
      box.bundleDir,
      "--pid-file",
      join(box.bundleDir, "pid"),
      box.run,
    ];
    const runtime = spawn("runc", args, { stdio: "ignore", detached: true });
    const ended = new Promise((resolve) => runtime.once("exit", resolve));
    while (!reached(box) && runtime.exitCode === null) await new Promise((resolve) => setImmediate(resolve));
    const cleared = await box.runtime.recover(`atoll-${box.tag}`, new Set(), AbortSignal.timeout(10_000));
    await ended;
    assert.ok(cleared.length <= 1, moment);
    assert.deepEqual(await box.runtime.list(), [], moment);
    assert.deepEqual(box.cgroups.list(`atoll-${box.tag}`), [], moment);
    await until(`no process of the run is left that was cut off ${moment}`, () => processesWith(box.tag).length === 0);
  }
});

test("a start that the runtime refuses says so in the runtime's own words", async () => {
  await using box = await openBox(["stay"]);
  box.spec.linux.namespaces = box.spec.linux.namespaces.map((entry) =>
    entry.type === "network" ? { ...entry, path: "/run/netns/not-there" } : entry,
  );
  await assert.rejects(
    box.create(),
    /^Error: Cannot create the run with runc: .*\/run\/netns\/not-there.*no such file/,
  );
});

test("a creation ends with its signal, and what it left is cleared", async () => {
  await using box = await openBox(["stay"]);
  const reason = new Error("enough");
  const stop = new AbortController();
  const created = box.runtime.create(box.run, box.bundleDir, box.spec, stop.signal);
  await until("the runtime has a directory", () => existsSync(join("/run/atoll", box.tag, "runc", box.run)));
  stop.abort(reason);
  // It may have been faster than we were.
  await created.catch((error) => assert.equal(error, reason));
  box.cgroups.killAll(box.group);
  await box.runtime.delete(box.run, box.group, AbortSignal.timeout(10_000));
  assert.deepEqual(await box.runtime.list(), []);
  await assert.rejects(box.runtime.create(box.run, box.bundleDir, box.spec, stop.signal), reason);
});

test("the gate of a run whose process has ended does not open", async () => {
  await using box = await openBox(["stay"]);
  const process = await box.create();
  await killAndWait(process);
  await assert.rejects(box.runtime.start(box.run, process), /Cannot start process \d+: it has ended/);
  assert.equal(existsSync(join("/run/atoll", box.tag, "runc", box.run, "exec.fifo")), true);
});

function processesWith(word: string): string[] {
  return readdirSync("/proc").filter((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, "latin1").includes(word);
    } catch {
      // It left while we looked.
      return false;
    }
  });
}
