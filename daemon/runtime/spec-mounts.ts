import { join } from "node:path";
import type { SpecInput } from "./spec.ts";

export type Mount = { destination: string; type: string; source: string; options: string[] };

/** What is mounted over the root file system, in the order in which the runtime does it. */
export function mountsOf(input: SpecInput): Mount[] {
  return [...kernelMounts(input.limits.memoryBytes), ...agentMounts(input), ...etcMounts(input.etcDir)];
}

/** Of a run's memory as much may lie in /dev/shm. */
export function sharedMemoryOf(memoryBytes: number): number {
  return memoryBytes / 2;
}

/** Terminals of one sandbox. The host's are one budget (4,096 by default) that no sandbox may take alone. */
const terminals = 256;

function kernelMounts(memoryBytes: number): Mount[] {
  return [
    mount("/proc", "proc", ["nosuid", "noexec", "nodev"]),
    // Nodes and links only, so small; the runtime puts the device nodes there.
    mount("/dev", "tmpfs", ["nosuid", "noexec", "strictatime", "mode=755", "size=1m", "nr_inodes=1k"]),
    // Group 5 is tty in every distribution.
    mount("/dev/pts", "devpts", [
      "nosuid",
      "noexec",
      "newinstance",
      "ptmxmode=0666",
      "mode=0620",
      "gid=5",
      `max=${terminals}`,
    ]),
    mount("/dev/shm", "tmpfs", [
      "nosuid",
      "noexec",
      "nodev",
      "mode=1777",
      `size=${Math.floor(sharedMemoryOf(memoryBytes) / 1024)}k`,
    ]),
    mount("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    // In a network namespace that is the host's own sysfs cannot be mounted, and there is nothing in it for a sandbox.
    mount("/sys", "tmpfs", ["nosuid", "noexec", "nodev", "ro", "mode=755", "size=64k"]),
    // Its own group only (cgroup namespace): Node, Java and Go size themselves by it.
    mount("/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
  ];
}

function agentMounts(input: SpecInput): Mount[] {
  return [
    // A file system of its own, so that the mount points below do not come to lie on the sandbox's disk.
    mount("/run/atoll", "tmpfs", ["nosuid", "nodev", "ro", "mode=755", "size=64k"]),
    bind(input.agentFile, "/run/atoll/agent", ["ro", "nosuid", "nodev"]),
    bind(input.linkDir, "/run/atoll/link", ["nosuid", "nodev", "noexec"]),
    bind(input.caFile, "/run/atoll/ca.pem", ["ro", "nosuid", "nodev", "noexec"]),
  ];
}

function etcMounts(etcDir: string): Mount[] {
  return ["hosts", "hostname", "resolv.conf"].map((name) =>
    bind(join(etcDir, name), join("/etc", name), ["ro", "nosuid", "nodev", "noexec"]),
  );
}

function mount(destination: string, type: string, options: string[]): Mount {
  return { destination, type, source: type, options };
}

function bind(source: string, destination: string, options: string[]): Mount {
  return { destination, type: "bind", source, options: ["bind", ...options] };
}
