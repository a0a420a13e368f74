import { join } from "node:path";
import type { GroupLimits } from "../linux/cgroup.ts";
import { mountsOf } from "./spec-mounts.ts";
import type { Mount } from "./spec-mounts.ts";
import type { Seccomp } from "./seccomp.ts";

/** What one run gets. All paths are the host's. */
export type SpecInput = {
  /** The mounted root file system. */
  rootDir: string;
  /** The tmpfs that holds the agent's socket. */
  linkDir: string;
  /** Directory with this run's `hosts`, `hostname` and `resolv.conf`. */
  etcDir: string;
  agentFile: string;
  /** Arguments after the agent's own name. */
  agentArgs: readonly string[];
  /** Certificates that the sandbox trusts, one PEM file. */
  caFile: string;
  hostname: string;
  /** A network namespace owned by the host. */
  netnsFile: string;
  /** Group below every hierarchy's root, without a leading slash: `atoll-<tag>/<run>`. */
  cgroup: string;
  uidBase: number;
  limits: RunLimits;
  host: HostLimits;
  seccomp: Seccomp;
};

export type RunLimits = {
  /** Share of processors: a weight, and with `cpuBurst: false` also the most it gets. */
  vcpu: number;
  cpuBurst: boolean;
  memoryBytes: number;
  pids: number;
};

/** What this process may pass on; more than that the kernel refuses without CAP_SYS_RESOURCE. */
export type HostLimits = {
  openFilesHard: number;
  lockedBytesHard: number;
  oomScoreAdj: number;
  /** Whether the kernel accounts swap for each group (`swapaccount=0` is the default of some distributions). */
  swapAccounting: boolean;
};

/** A bundle's `config.json`, as far as we use it (OCI runtime specification 1.0.2). */
export type OciSpec = {
  ociVersion: string;
  process: {
    terminal: false;
    user: { uid: number; gid: number };
    args: string[];
    env: string[];
    cwd: string;
    capabilities: Record<"bounding" | "effective" | "permitted", string[]>;
    rlimits: { type: string; soft: number; hard: number }[];
    noNewPrivileges: true;
    oomScoreAdj: number;
  };
  root: { path: string; readonly: boolean };
  hostname: string;
  mounts: Mount[];
  linux: {
    namespaces: { type: string; path?: string }[];
    uidMappings: IdMapping[];
    gidMappings: IdMapping[];
    cgroupsPath: string;
    resources: {
      devices: { allow: boolean; access: string }[];
      cpu: { shares: number; quota?: number; period?: number };
      memory: { limit: number; swap?: number };
      pids: { limit: number };
    };
    rootfsPropagation: string;
    maskedPaths: string[];
    readonlyPaths: string[];
    seccomp: Seccomp;
  };
};

type IdMapping = { containerID: number; hostID: number; size: number };

/** One user namespace holds as many ids as programs expect of a computer: 0–65535, `nobody` among them. */
export const uidCount = 65_536;

/** Docker's default set without NET_RAW: the sandbox's root installs packages and changes owners; it forges no packets. */
export const capabilities = [
  "CAP_AUDIT_WRITE",
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_MKNOD",
  "CAP_NET_BIND_SERVICE",
  "CAP_SETFCAP",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT",
] as const;

/** The bundle of one run: design.md section 4 as an OCI runtime reads it. Pure. */
export function buildSpec(input: SpecInput): OciSpec {
  const ids = [{ containerID: 0, hostID: input.uidBase, size: uidCount }];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: ["/run/atoll/agent", ...input.agentArgs],
      // Of the agent itself; what it starts gets its environment with every call.
      env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
      cwd: "/",
      capabilities: { bounding: [...capabilities], effective: [...capabilities], permitted: [...capabilities] },
      rlimits: rlimitsOf(input.host),
      noNewPrivileges: true,
      // The kernel refuses to go below what we have ourselves, and a sandbox must never outlive the daemon in a shortage.
      oomScoreAdj: Math.max(0, input.host.oomScoreAdj),
    },
    root: { path: input.rootDir, readonly: false },
    hostname: input.hostname,
    mounts: mountsOf(input),
    linux: {
      namespaces: [
        { type: "pid" },
        { type: "network", path: input.netnsFile },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "user" },
        { type: "cgroup" },
      ],
      uidMappings: ids,
      gidMappings: ids,
      cgroupsPath: join("/", input.cgroup),
      resources: resourcesOf(input.limits, input.host),
      // What is mounted on the host later must not appear inside, nor keep anything busy there.
      rootfsPropagation: "private",
      maskedPaths: [...maskedPaths],
      readonlyPaths: [...readonlyPaths],
      seccomp: input.seccomp,
    },
  };
}

/** 1,024 shares a processor: the kernel's own measure of one, so a quarter vCPU is 256. */
export const sharesPerVcpu = 1024;

/** Microseconds; the kernel's default. Shorter periods cost switches, longer ones show as stutter. */
export const quotaPeriodUs = 100_000;

/** The limits of a run's group, as the runtime sets them and as they are set on one that is there. */
export function groupLimitsOf(limits: RunLimits): Required<GroupLimits> {
  return {
    // 2 is the least the kernel takes.
    cpuShares: Math.max(2, Math.round(limits.vcpu * sharesPerVcpu)),
    cpuQuotaUs: limits.cpuBurst ? "max" : Math.max(1000, Math.round(limits.vcpu * quotaPeriodUs)),
    memoryBytes: limits.memoryBytes,
    pids: limits.pids,
  };
}

function resourcesOf(limits: RunLimits, host: HostLimits): OciSpec["linux"]["resources"] {
  const { cpuShares, cpuQuotaUs, memoryBytes, pids } = groupLimitsOf(limits);
  return {
    // Nothing first; the runtime adds null, zero, full, random, urandom, tty and the run's own terminals.
    devices: [{ allow: false, access: "rwm" }],
    cpu: {
      shares: cpuShares,
      ...(cpuQuotaUs !== "max" && { quota: cpuQuotaUs, period: quotaPeriodUs }),
    },
    // Memory and swap together may be as much as memory alone: no swap.
    memory: { limit: memoryBytes, ...(host.swapAccounting && { swap: memoryBytes }) },
    pids: { limit: pids },
  };
}

/** Dev servers and databases ask for tens of thousands; more makes old programs, which close every number, slow. */
const openFiles = 65_536;

/** The kernel's default: enough for keys in locked memory, not for pinning the host's. */
const lockedBytes = 8 * 1024 * 1024;

function rlimitsOf(host: HostLimits): OciSpec["process"]["rlimits"] {
  const both = (type: string, wanted: number, hard = Infinity) => {
    const value = Math.min(wanted, hard);
    return { type, soft: value, hard: value };
  };
  return [
    both("RLIMIT_NOFILE", openFiles, host.openFilesHard),
    both("RLIMIT_MEMLOCK", lockedBytes, host.lockedBytesHard),
    // 1, not 0: the kernel hands crashes to a piped core_pattern, a root program of the host, at 0 but not at 1.
    both("RLIMIT_CORE", 1),
  ];
}

/** Docker's list: what tells of the host, or is a way to it, is not there. */
const maskedPaths = [
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
];

/** The last only where v1 puts one mount for each controller there: the directory that holds them. */
const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys/fs/cgroup"];
