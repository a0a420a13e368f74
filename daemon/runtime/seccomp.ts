/** Seccomp filter as the OCI runtime specification has it (`linux.seccomp`). */
export type Seccomp = {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures: string[];
  syscalls: SeccompRule[];
};

export type SeccompRule = { names: string[]; action: string; errnoRet?: number; args?: SeccompArg[] };
export type SeccompArg = { index: number; value: number; valueTwo?: number; op: string };

/** The distribution's profile (`/usr/share/containers/seccomp.json`), as far as we read it: Podman's dialect of Docker's format. */
export type ContainersProfile = {
  defaultAction: string;
  defaultErrnoRet?: number;
  archMap: { architecture: string; subArchitectures?: string[] }[];
  syscalls: {
    names: string[];
    action: string;
    errnoRet?: number;
    args?: SeccompArg[] | null;
    includes?: Condition;
    excludes?: Condition;
  }[];
};

type Condition = { caps?: string[]; arches?: string[] };

/**
 * Translates the distribution's profile for processes that hold at most `capabilities`, on `arch` (Node's name: "x64",
 * "arm64"), and takes from it everything in `refusals`. Only the native instruction set gets in: the compatibility entry
 * points (i386, x32, arm) are a second kernel surface that nearly no program needs. Throws on an architecture the profile does not name.
 */
export function buildSeccomp(profile: ContainersProfile, capabilities: readonly string[], arch: string): Seccomp {
  const native = architectures[arch];
  if (!native || !profile.archMap.some((entry) => entry.architecture === native.seccomp)) {
    throw new Error(`Cannot build the seccomp filter: the profile does not know the architecture "${arch}"`);
  }
  const applies = ({ includes, excludes }: ContainersProfile["syscalls"][number]): boolean =>
    (includes?.caps ?? []).every((cap) => capabilities.includes(cap)) &&
    (!includes?.arches?.length || includes.arches.includes(native.profile)) &&
    !(excludes?.caps ?? []).some((cap) => capabilities.includes(cap)) &&
    !(excludes?.arches ?? []).includes(native.profile);
  const ours = new Set([...refusals.keys(), "clone", "clone3", "socket", "socketpair"]);

  const kept = profile.syscalls.filter(applies).flatMap((rule) => {
    const names = rule.names.filter((name) => !ours.has(name));
    return names.length === 0 ? [] : [ruleOf(names, rule.action, rule.errnoRet, rule.args ?? undefined)];
  });
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultErrnoRet !== undefined && { defaultErrnoRet: profile.defaultErrnoRet }),
    architectures: [native.seccomp],
    syscalls: [...kept, ruleOf([...refusals.keys()], refuse, EPERM), ...cloneRules(), ...socketRules()],
  };
}

/** What the sandbox may not call though the profile or a newer kernel would let it, and why. Each is answered with EPERM. */
export const refusals: ReadonlyMap<string, string> = new Map([
  ["unshare", "a new user namespace would give every capability over fresh kernel objects"],
  ["setns", "no namespace but its own is any of the sandbox's business"],
  ["mount", "the mount table is ours; most of the kernel's container escapes began with a mount"],
  ["umount", "the masks over /proc are mounts"],
  ["umount2", "the masks over /proc are mounts"],
  ["fsopen", "new mount interface: the same as mount"],
  ["fsconfig", "new mount interface; parsed strings of any length in the kernel (CVE-2022-0185)"],
  ["fsmount", "new mount interface: the same as mount"],
  ["fspick", "new mount interface: reconfigures a mounted file system"],
  ["move_mount", "new mount interface: the same as mount"],
  ["open_tree", "new mount interface: clones mounts"],
  ["open_tree_attr", "new mount interface: clones mounts"],
  ["mount_setattr", "would lift read-only and nosuid from mounts"],
  ["pivot_root", "changes the root under everybody else"],
  ["keyctl", "keyrings belong to a user, not to a namespace's life; a past source of escapes (CVE-2016-0728)"],
  ["add_key", "kernel memory of the host held by keys nobody sees"],
  ["request_key", "makes the host start /sbin/request-key"],
  ["userfaultfd", "lets user space stop the kernel in the middle of a copy: the helper of most race exploits"],
  ["perf_event_open", "counts and samples what runs on the host's processors"],
  ["bpf", "programs in the kernel"],
  ["io_uring_setup", "does file and socket work past this filter; the largest source of kernel escapes of its years"],
  ["io_uring_enter", "as io_uring_setup"],
  ["io_uring_register", "as io_uring_setup"],
  ["open_by_handle_at", "opens files by number, past every path (the shocker escape)"],
  ["name_to_handle_at", "makes the numbers for open_by_handle_at, and tells the host's mount ids"],
  ["syslog", "the kernel's log is the host's"],
]);

const refuse = "SCMP_ACT_ERRNO";
const allow = "SCMP_ACT_ALLOW";
const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

const architectures: Record<string, { seccomp: string; profile: string } | undefined> = {
  x64: { seccomp: "SCMP_ARCH_X86_64", profile: "amd64" },
  arm64: { seccomp: "SCMP_ARCH_AARCH64", profile: "arm64" },
};

/** CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; CLONE_NEWTIME shares its bit with the exit signal and exists in clone3 and unshare only. */
const namespaceFlags = [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

function cloneRules(): SeccompRule[] {
  const all = namespaceFlags.reduce((sum, flag) => sum + flag, 0);
  return [
    ruleOf(["clone"], allow, undefined, [{ index: 0, value: all, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }]),
    // One rule a flag: the filter's language has no "any of these bits", and the default (ENOSYS) would tell programs a lie.
    ...namespaceFlags.map((flag) =>
      ruleOf(["clone"], refuse, EPERM, [{ index: 0, value: flag, valueTwo: flag, op: "SCMP_CMP_MASKED_EQ" }]),
    ),
    // Its flags lie in memory, where a filter cannot look. ENOSYS, because C libraries then fall back to clone.
    ruleOf(["clone3"], refuse, ENOSYS),
  ];
}

/**
 * Unix, IPv4, IPv6 and netlink. AF_VSOCK knows no network namespaces: on a rented machine it reaches the hypervisor's
 * services. AF_ALG, TIPC, RDS and their like load kernel modules on request and have a record of escapes.
 */
const socketFamilies = [1, 2, 10, 16];

function socketRules(): SeccompRule[] {
  const names = ["socket", "socketpair"];
  return [
    ...socketFamilies.map((family) =>
      ruleOf(names, allow, undefined, [{ index: 0, value: family, op: "SCMP_CMP_EQ" }]),
    ),
    ruleOf(names, refuse, EAFNOSUPPORT, [{ index: 0, value: Math.max(...socketFamilies) + 1, op: "SCMP_CMP_GE" }]),
  ];
}

function ruleOf(names: string[], action: string, errnoRet?: number, args?: SeccompArg[]): SeccompRule {
  return { names, action, ...(errnoRet !== undefined && { errnoRet }), ...(args && args.length > 0 && { args }) };
}
