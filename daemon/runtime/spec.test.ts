import assert from "node:assert/strict";
import { test } from "node:test";
import { buildSpec, capabilities } from "./spec.ts";
import type { OciSpec, SpecInput } from "./spec.ts";

const seccomp = { defaultAction: "SCMP_ACT_ERRNO", architectures: ["SCMP_ARCH_X86_64"], syscalls: [] };

const input: SpecInput = {
  rootDir: "/run/atoll/abcdef/0123/root",
  linkDir: "/run/atoll/abcdef/0123/link",
  etcDir: "/run/atoll/abcdef/0123/etc",
  agentFile: "/var/lib/atoll/store/agent",
  agentArgs: ["--socket", "agent"],
  caFile: "/var/lib/atoll/store/ca.pem",
  hostname: "agent-47",
  netnsFile: "/run/netns/aabcdef-3",
  cgroup: "atoll-abcdef/0123",
  uidBase: 1_900_000_000,
  limits: { vcpu: 0.25, cpuBurst: true, memoryBytes: 1024 ** 3, pids: 1024 },
  host: { openFilesHard: 1_048_576, lockedBytesHard: Infinity, oomScoreAdj: 0, swapAccounting: true },
  seccomp,
};

test("the spec of an ordinary run, whole", () => {
  const file = ["bind", "ro", "nosuid", "nodev", "noexec"];
  const caps = [...capabilities];
  const limit = (type: string, value: number) => ({ type, soft: value, hard: value });
  assert.deepEqual(buildSpec(input), {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: ["/run/atoll/agent", "--socket", "agent"],
      env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
      cwd: "/",
      capabilities: { bounding: caps, effective: caps, permitted: caps },
      rlimits: [limit("RLIMIT_NOFILE", 65_536), limit("RLIMIT_MEMLOCK", 8_388_608), limit("RLIMIT_CORE", 1)],
      noNewPrivileges: true,
      oomScoreAdj: 0,
    },
    root: { path: "/run/atoll/abcdef/0123/root", readonly: false },
    hostname: "agent-47",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "noexec", "strictatime", "mode=755", "size=1m", "nr_inodes=1k"],
      },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=256"],
      },
      {
        destination: "/dev/shm",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "noexec", "nodev", "mode=1777", "size=524288k"],
      },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
      {
        destination: "/sys",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "noexec", "nodev", "ro", "mode=755", "size=64k"],
      },
      {
        destination: "/sys/fs/cgroup",
        type: "cgroup",
        source: "cgroup",
        options: ["nosuid", "noexec", "nodev", "relatime", "ro"],
      },
      {
        destination: "/run/atoll",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "nodev", "ro", "mode=755", "size=64k"],
      },
      {
        destination: "/run/atoll/agent",
        type: "bind",
        source: "/var/lib/atoll/store/agent",
        options: ["bind", "ro", "nosuid", "nodev"],
      },
      {
        destination: "/run/atoll/link",
        type: "bind",
        source: "/run/atoll/abcdef/0123/link",
        options: ["bind", "nosuid", "nodev", "noexec"],
      },
      { destination: "/run/atoll/ca.pem", type: "bind", source: "/var/lib/atoll/store/ca.pem", options: file },
      { destination: "/etc/hosts", type: "bind", source: "/run/atoll/abcdef/0123/etc/hosts", options: file },
      { destination: "/etc/hostname", type: "bind", source: "/run/atoll/abcdef/0123/etc/hostname", options: file },
      {
        destination: "/etc/resolv.conf",
        type: "bind",
        source: "/run/atoll/abcdef/0123/etc/resolv.conf",
        options: file,
      },
    ],
    linux: {
      namespaces: [
        { type: "pid" },
        { type: "network", path: "/run/netns/aabcdef-3" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "user" },
        { type: "cgroup" },
      ],
      uidMappings: [{ containerID: 0, hostID: 1_900_000_000, size: 65_536 }],
      gidMappings: [{ containerID: 0, hostID: 1_900_000_000, size: 65_536 }],
      cgroupsPath: "/atoll-abcdef/0123",
      resources: {
        devices: [{ allow: false, access: "rwm" }],
        cpu: { shares: 256 },
        memory: { limit: 1_073_741_824, swap: 1_073_741_824 },
        pids: { limit: 1024 },
      },
      rootfsPropagation: "private",
      maskedPaths: [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
      ],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys/fs/cgroup"],
      seccomp,
    },
  } satisfies OciSpec);
});

test("processor shares follow the size, and only cpuBurst: false makes them a ceiling", () => {
  const cpuOf = (vcpu: number, cpuBurst = true) =>
    buildSpec({ ...input, limits: { ...input.limits, vcpu, cpuBurst } }).linux.resources.cpu;
  assert.deepEqual(
    [1 / 16, 1 / 4, 1 / 2, 1, 2, 4].map((vcpu) => cpuOf(vcpu)),
    [64, 256, 512, 1024, 2048, 4096].map((shares) => ({ shares })),
  );
  assert.deepEqual(cpuOf(0.5, false), { shares: 512, quota: 50_000, period: 100_000 });
  // The least that the kernel takes.
  assert.deepEqual(cpuOf(0.001, false), { shares: 2, quota: 1000, period: 100_000 });
});

test("no limit is higher than what the daemon may pass on, and no sandbox is spared in a shortage", () => {
  const host = { openFilesHard: 20_000, lockedBytesHard: 65_536, oomScoreAdj: 300, swapAccounting: false };
  const { process, linux } = buildSpec({ ...input, host });
  assert.deepEqual(process.rlimits.slice(0, 2), [
    { type: "RLIMIT_NOFILE", soft: 20_000, hard: 20_000 },
    { type: "RLIMIT_MEMLOCK", soft: 65_536, hard: 65_536 },
  ]);
  assert.equal(process.oomScoreAdj, 300);
  assert.equal(buildSpec({ ...input, host: { ...host, oomScoreAdj: -900 } }).process.oomScoreAdj, 0);
  assert.deepEqual(linux.resources.memory, { limit: 1024 ** 3 });
});
