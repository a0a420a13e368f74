import { existsSync, readFileSync } from "node:fs";
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, statfs } from "node:fs/promises";
import { freemem, release, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { openCgroups } from "../linux/cgroup.ts";
import { mountOverlay, unmount } from "../linux/mount.ts";
import { run } from "../linux/run.ts";
import { readSysctl } from "../linux/sysctl.ts";
import { smallHostBudgets } from "./host-budgets.ts";
import { readHostLimits } from "./host-limits.ts";
import type { Check } from "./host.ts";
import { buildSeccomp } from "./seccomp.ts";
import type { ContainersProfile } from "./seccomp.ts";
import { capabilities, uidCount } from "./spec.ts";

/** The distribution's profile, from the package golang-github-containers-common (Debian, Ubuntu) or containers-common (others). */
export const seccompProfileFile = "/usr/share/containers/seccomp.json";

export function checkKernel(): Promise<Check> {
  return check("kernel", "Use Linux 5.15 or newer on x86-64 or arm64", async () => {
    const [major = 0, minor = 0] = release().split(".").map(Number);
    if (process.platform !== "linux") return no(process.platform);
    if (process.arch !== "x64" && process.arch !== "arm64") return no(process.arch);
    // 5.14 counts RLIMIT_NPROC for each user namespace, without which a fork bomb takes the agent's threads; 5.15 is the next that lived long.
    return [major > 5 || (major === 5 && minor >= 15), `Linux ${release()} on ${process.arch}`];
  });
}

/** Numbers of linux/capability.h: what mounting, namespaces, ownership and ending other users' processes take. */
const neededRights = {
  CHOWN: 0,
  DAC_OVERRIDE: 1,
  FOWNER: 3,
  KILL: 5,
  SETGID: 6,
  SETUID: 7,
  NET_ADMIN: 12,
  SYS_PTRACE: 19,
  SYS_ADMIN: 21,
};

export function checkRights(): Promise<Check> {
  return check("rights", "Run the daemon as root, outside of a container or in a privileged one", async () => {
    if (process.geteuid?.() !== 0) return no(`uid ${process.geteuid?.()}`);
    const held = BigInt(`0x${/^CapEff:\s*(\w+)$/m.exec(await readFile("/proc/self/status", "utf8"))?.[1]}`);
    const missing = Object.entries(neededRights).filter(([, bit]) => !(held & (1n << BigInt(bit))));
    return missing.length ? no(`root without ${missing.map(([name]) => `CAP_${name}`).join(", ")}`) : yes("root");
  });
}

export function checkCgroups(): Promise<Check> {
  return check("cgroups", "Mount cgroup2 at /sys/fs/cgroup with the controllers cpu, memory and pids", async () => {
    const { version, missing } = openCgroups();
    return missing.length ? no(`${version} without ${missing.join(", ")}`) : yes(version);
  });
}

export function checkSwap(): Promise<Check> {
  return check("swap", "Boot with swapaccount=1, or turn swap off (swapoff -a)", async () => {
    if (/^SwapTotal:\s*0 kB$/m.test(await readFile("/proc/meminfo", "utf8"))) return yes("none");
    return openCgroups().swapAccounting
      ? yes("on, and kept from sandboxes")
      : no("on, and not accounted: sandboxes could fill it");
  });
}

export function checkUserNamespaces(): Promise<Check> {
  return check("user namespaces", "Run sysctl -w user.max_user_namespaces=65536", async () => {
    const value = Number(readSysctl("user.max_user_namespaces") ?? 0);
    return [value > 0 && existsSync("/proc/self/ns/user"), `at most ${value}`];
  });
}

export function checkUids(uidBase: number): Promise<Check> {
  return check("user ids", "Set another uidBase in the configuration", async () => {
    const texts = await Promise.all(
      ["subuid", "subgid", "passwd", "group"].map((name) => readFile(`/etc/${name}`, "utf8").catch(() => "")),
    );
    const [subuid = "", subgid = "", passwd = "", group = ""] = texts;
    const overlap = findUidOverlap(uidBase, { subordinate: `${subuid}\n${subgid}`, accounts: `${passwd}\n${group}` });
    const range = `${uidBase}–${uidBase + uidCount - 1}`;
    if (uidBase < 1_000_000 || uidBase + uidCount > 2 ** 32 - 2) return no(`${range} is not a range of free ids`);
    return overlap ? no(`${range} is also ${overlap}`) : yes(`${range}, nobody else's`);
  });
}

/** Who else holds ids of `uidBase..+65535`: lines of /etc/subuid (`name:first:count`) or of /etc/passwd and /etc/group. Pure. */
export function findUidOverlap(
  uidBase: number,
  { subordinate, accounts }: { subordinate: string; accounts: string },
): string | undefined {
  const meets = (first: number, count: number) => first < uidBase + uidCount && first + count > uidBase;
  for (const line of subordinate.split("\n")) {
    const [name, first, count] = line.split(":");
    if (count && meets(Number(first), Number(count)))
      return `given to ${name} in /etc/subuid or /etc/subgid (${first}:${count})`;
  }
  for (const line of accounts.split("\n")) {
    const [name, , id] = line.split(":");
    if (id && meets(Number(id), 1)) return `the id of ${name}`;
  }
  return undefined;
}

export function checkRuntime(command: string): Promise<Check> {
  return check("OCI runtime", "Install runc 1.1 or newer: apt-get install runc", async () => {
    const words = await run(command, ["--version"]);
    const [name = command, version = ""] = /^(\S+) version (\S+)/m.exec(words)?.slice(1) ?? [];
    const [major = 0, minor = 0] = version.split(".").map(Number);
    return [name !== "runc" || major > 1 || (major === 1 && minor >= 1), `${name} ${version}`.trim()];
  });
}

const neededPrograms: Record<string, string> = {
  ip: "iproute2",
  nft: "nftables",
  mount: "mount",
  umount: "mount",
  nsenter: "util-linux",
  setpriv: "util-linux",
  sysctl: "procps",
  btrfs: "btrfs-progs",
  "mkfs.btrfs": "btrfs-progs",
};

export function checkPrograms(): Promise<Check> {
  const path = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  const missing = Object.keys(neededPrograms).filter(
    (name) => !path.some((directory) => existsSync(join(directory, name))),
  );
  const packages = [...new Set(missing.map((name) => neededPrograms[name]))];
  return check("programs", `Run ./setup, or apt-get install ${packages.join(" ")}`, async () =>
    missing.length ? no(`missing: ${missing.join(", ")}`) : yes(Object.keys(neededPrograms).join(", ")),
  );
}

export function checkSeccomp(): Promise<Check> {
  return check("seccomp profile", "Run ./setup, or apt-get install golang-github-containers-common", async () => {
    if (!readSysctl("kernel.seccomp.actions_avail")?.includes("errno")) return no("this kernel has no seccomp filters");
    const profile = JSON.parse(await readFile(seccompProfileFile, "utf8")) as ContainersProfile;
    const { syscalls } = buildSeccomp(profile, capabilities, process.arch);
    return yes(`${seccompProfileFile}, ${new Set(syscalls.flatMap((rule) => rule.names)).size} calls named`);
  });
}

export function checkOverlay(dataDir: string): Promise<Check> {
  return check(
    "overlay file system",
    "Put the data directory on btrfs, ext4 or xfs; load the overlay module (modprobe overlay)",
    async () => {
      await using undo = new AsyncDisposableStack();
      const parent = await nearest(dataDir);
      await clearKilled(parent);
      const directory = await mkdtemp(join(parent, `${trialPrefix}${process.pid}-`));
      undo.defer(() => rm(directory, { recursive: true, force: true }));
      const [lower, upper, work, target] = ["lower", "upper", "work", "target"].map((name) =>
        join(directory, name),
      ) as [string, string, string, string];
      for (const path of [join(lower, "before"), upper, work, target]) await mkdir(path, { recursive: true });
      await mountOverlay({ lower, upper, work, target });
      undo.defer(async () => void (await unmount(target, AbortSignal.timeout(10_000))));
      // Works only with redirect_dir: what users meet as "cannot move a directory".
      await rename(join(target, "before"), join(target, "after"));
      return yes(`mounted and used below ${parent}`);
    },
  );
}

/** Followed by the pid of who tries. */
const trialPrefix = ".atoll-doctor-";

/** What a killed process left of its trial: the mount would stay until the host restarts. */
async function clearKilled(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const pid = name.startsWith(trialPrefix) ? name.slice(trialPrefix.length).split("-")[0] : undefined;
    if (pid === undefined || (await stat(`/proc/${pid}`).catch(() => undefined))) continue; // still at it
    await unmount(join(parent, name, "target"), AbortSignal.timeout(10_000));
    await rm(join(parent, name), { recursive: true, force: true });
  }
}

export function checkBtrfs(): Promise<Check> {
  return check("btrfs", "Load the module: modprobe btrfs (Debian and Ubuntu kernels have it)", async () => {
    const known = async () => /\bbtrfs$/m.test(await readFile("/proc/filesystems", "utf8"));
    if (await known()) return yes("in the kernel");
    await run("modprobe", ["btrfs"]);
    return (await known()) ? yes("in the kernel, as a module") : no("not in this kernel");
  });
}

/** With a user namespace the runtime walks these paths as a uid that nobody knows. */
export function checkTraversal(dataDir: string): Promise<Check> {
  return check(
    "paths to run mounts",
    "Let everybody pass: chmod o+x the directory named (0711 is enough)",
    async () => {
      for (const directory of ["/run/atoll", dataDir]) {
        for (let at = await nearest(directory); at !== "/"; at = dirname(at)) {
          if (!((await stat(at)).mode & 0o001)) return no(`${at} is closed to others`);
        }
      }
      return yes("open to pass");
    },
  );
}

export function checkSpace(dataDir: string): Promise<Check> {
  return check(
    "free space",
    "Free some: no sandbox starts below 10 %, running ones are put to sleep below 5 %",
    async () => {
      const { bavail, blocks, bsize } = await statfs(await nearest(dataDir));
      return [
        bavail / blocks >= 0.1,
        `${gibibytes(bavail * bsize)} of ${gibibytes(blocks * bsize)} (${Math.round((100 * bavail) / blocks)} %)`,
      ];
    },
    false,
  );
}

export function checkMemory(): Promise<Check> {
  return check(
    "memory",
    "Stop other programs or use a larger machine",
    async () => {
      const available =
        Number(/^MemAvailable:\s*(\d+) kB$/m.exec(await readFile("/proc/meminfo", "utf8"))?.[1] ?? freemem() / 1024) *
        1024;
      // The daemon, the gateway and one sandbox of the smallest size.
      return [available >= 512 * 1024 ** 2, `${gibibytes(available)} of ${gibibytes(totalmem())} available`];
    },
    false,
  );
}

export function checkClock(): Promise<Check> {
  return check(
    "clock",
    "Set the clock: certificates are refused when it is wrong",
    async () => {
      const built = (await stat(process.execPath)).mtimeMs;
      return [Date.now() >= built - 86_400_000, new Date().toISOString()];
    },
    false,
  );
}

export function checkBudgets(): Promise<Check> {
  const small = smallHostBudgets();
  const remedy = `atoll up raises them; if it may not: ${small.map(({ name, atLeast }) => `sysctl -w ${name}=${atLeast}`).join("; ")}`;
  return check(
    "kernel budgets",
    remedy,
    async () =>
      small.length
        ? no(small.map(({ name, value, reason }) => `${name} is ${value} (${reason})`).join("; "))
        : yes("large enough"),
    false,
  );
}

export function checkOpenFiles(): Promise<Check> {
  return check(
    "open files",
    "Raise the hard limit of the daemon (LimitNOFILE=1048576, ulimit -Hn)",
    async () => {
      const { openFilesHard } = readHostLimits(openCgroups());
      return [openFilesHard >= 65_536, `hard limit ${openFilesHard}; sandboxes get no more`];
    },
    false,
  );
}

export function checkCrashes(): Promise<Check> {
  return check(
    "crash reports",
    "Run sysctl -w kernel.core_pattern=core: a crash inside a sandbox may start that program as root",
    async () => {
      const pattern = readFileSync("/proc/sys/kernel/core_pattern", "utf8").trim();
      return [
        !pattern.startsWith("|"),
        pattern.startsWith("|")
          ? `handed to ${pattern.slice(1).split(" ")[0]} on the host`
          : "written where they happen",
      ];
    },
    false,
  );
}

type Finding = [ok: boolean, detail: string];

const yes = (detail: string): Finding => [true, detail];
const no = (detail: string): Finding => [false, detail];

/** A check that fails to look has found that it does not work. */
async function check(name: string, remedy: string, look: () => Promise<Finding>, needed = true): Promise<Check> {
  const [ok, detail] = await look().catch((error: Error): Finding => no(error.message));
  return { name, ok, detail, needed, ...(!ok && { remedy }) };
}

/** The directory itself, or the nearest parent that is there. */
async function nearest(directory: string): Promise<string> {
  for (let at = directory; ; at = dirname(at)) {
    const there = await access(at).then(
      () => true,
      () => false,
    );
    if (there || at === "/") return at;
  }
}

function gibibytes(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}
