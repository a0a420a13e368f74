import { chmod, mkdir, readFile, realpath, rename, rm, stat, statfs, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SandboxError } from "../../protocol/errors.ts";
import { isReadOnly } from "../linux/mount.ts";
import { HostProgramError, run } from "../linux/run.ts";
import { lockFile } from "./lock.ts";

/** Where the disks of one daemon lie: a directory in btrfs, with quota on. */
export type Pool = {
  dir: string;
  /** The file behind it when the data directory is not btrfs itself. */
  file?: string;
  /** The file systems whose free space bounds what the disks can take. */
  spacePaths: string[];
};

export type PoolOptions = {
  dataDir: string;
  /** Size of a new pool file; default: 80 % of what is free in the data directory. */
  sizeBytes?: number;
};

/**
 * The pool of this data directory: the directory itself when it is on btrfs, else a loop file in it, made when missing.
 * A pool that an earlier life of the daemon left mounted is used as it is. Fails when quota cannot be had.
 */
export async function openPool({ dataDir, sizeBytes }: PoolOptions): Promise<Pool> {
  await mkdir(dataDir, { recursive: true, mode: 0o711 });
  const home = await realpath(dataDir);
  const dir = join(home, "pool");
  const file = join(home, "pool.btrfs");
  // A file system mounted through two loop devices destroys itself: one opener at a time.
  await using _lock = await lockFile(join(home, "pool.lock"));
  await mkdir(dir, { recursive: true, mode: 0o711 });
  if (!(await isThere(file)) && (await isBtrfs(home))) {
    await enableQuota(dir);
    return { dir, spacePaths: [dir] };
  }
  if (!(await isMounted(dir))) {
    if (!(await isThere(file))) await makePoolFile(file, sizeBytes ?? (await defaultSize(home)));
    await mountPoolFile(file, dir);
  }
  requireWritable(dir);
  await enableQuota(dir);
  await removeStaleGroups(dir);
  return { dir, file, spacePaths: [dir, home] };
}

/**
 * Unmounts a pool file and gives its loop device back; the file stays. In a btrfs data directory there is nothing to end.
 * An overlay has a hold of its own on what it is made of: under a run the name goes, the device when the run does.
 */
export async function endPool(pool: Pool): Promise<void> {
  if (!pool.file) return;
  if (await isMounted(pool.dir)) await run("umount", [pool.dir]);
  for (const device of await loopDevicesOf(pool.file)) await detach(device);
}

/** What a mounted pool may take of the free space: the host must go on working when every disk is full. */
const poolShare = 0.8;
/** mkfs.btrfs needs 109 MiB; with less than this there is no room for one disk. */
const smallestPoolBytes = 256 * 1024 * 1024;

async function defaultSize(dataDir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dataDir);
  const sizeBytes = Math.floor(bavail * bsize * poolShare);
  if (sizeBytes >= smallestPoolBytes) return sizeBytes;
  throw new Error(
    `Cannot make a pool in "${dataDir}": only ${Math.floor((bavail * bsize) / 1e6)} MB is free. Free space there or choose another directory with --data-dir`,
  );
}

/**
 * btrfs gives out its room in chunks, for data or for metadata. In a small pool (1 GiB: tried) one data chunk takes all of it, and once
 * that was full nothing can be made any more, even when all data is deleted. Mixed chunks hold both; from here on there are enough.
 */
const mixedBelowBytes = 4 * 1024 ** 3;

async function makePoolFile(file: string, sizeBytes: number): Promise<void> {
  const unfinished = `${file}.new`;
  await rm(unfinished, { force: true });
  await writeFile(unfinished, "", { mode: 0o600 });
  await truncate(unfinished, sizeBytes - (sizeBytes % 4096)); // direct I/O wants whole blocks
  // One copy of the metadata: two copies in one file of the host's are lost together.
  const mixed = sizeBytes < mixedBelowBytes ? ["--mixed"] : [];
  await run("mkfs.btrfs", ["--quiet", "--metadata", "single", "--data", "single", ...mixed, unfinished]);
  await rename(unfinished, file);
}

async function mountPoolFile(file: string, dir: string): Promise<void> {
  // One that is there already is left from a life that ended between the attach and the mount, or a run still uses it. A second
  // device for the same file would destroy the file system.
  const [left] = await loopDevicesOf(file);
  const device = left ?? (await attach(file));
  try {
    // discard=async gives the blocks of destroyed disks back to the host's file system.
    await run("mount", ["-t", "btrfs", "-o", "noatime,discard=async", device, dir]);
  } finally {
    // A device in use is only marked: it goes by itself with the unmount, whoever does that. An unused one goes now.
    await detach(device);
  }
  await chmod(dir, 0o711);
}

async function attach(file: string): Promise<string> {
  const args = ["--find", "--show", file];
  try {
    // Direct I/O: what the disks hold is cached once, not twice.
    return (await run("losetup", ["--direct-io=on", ...args])).trim();
  } catch {
    // File systems without direct I/O (tmpfs) take the plain way, or tell in their own words why that fails too.
    return (await run("losetup", args)).trim();
  }
}

async function loopDevicesOf(file: string): Promise<string[]> {
  const listed = await run("losetup", ["--associated", file, "--noheadings", "--output", "NAME"]);
  return listed
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

async function detach(device: string): Promise<void> {
  try {
    await run("losetup", ["--detach", device]);
  } catch (error) {
    // ENXIO: the unmount was quicker.
    if (!(error as Error).message.includes("No such device")) throw error;
  }
}

/** Turns quota on and makes sure that its numbers are right; both are quick when nothing is to be done. */
async function enableQuota(dir: string): Promise<void> {
  try {
    // Simple quotas count what a subvolume wrote itself and cost nothing when snapshots come and go (Linux 6.7).
    await run("btrfs", ["quota", "enable", "--simple", dir]);
  } catch {
    await run("btrfs", ["quota", "enable", dir]);
  }
  const uuid = (await run("findmnt", ["--noheadings", "--output", "UUID", "--target", dir])).trim();
  const qgroups = `/sys/fs/btrfs/${uuid}/qgroups`;
  // Linux 6.13 stops counting, and with it every limit, when a big subvolume is deleted; 8 (the deepest tree) forbids that.
  await writeFile(`${qgroups}/drop_subtree_threshold`, "8", { flag: "r+" }).catch(ignoreMissing);
  const inconsistent = await readFile(`${qgroups}/inconsistent`, "utf8").catch(ignoreMissing);
  if (inconsistent?.trim() === "1") await run("btrfs", ["quota", "rescan", "-w", dir]);
}

/** Before Linux 6.11 a deleted subvolume leaves its quota group, and every write pays for every group. */
async function removeStaleGroups(dir: string): Promise<void> {
  const [groups, ...subvolumes] = await Promise.all([
    run("btrfs", ["qgroup", "show", "--raw", dir]),
    run("btrfs", ["subvolume", "list", dir]),
    run("btrfs", ["subvolume", "list", "-d", dir]), // deleted, and not cleaned up yet
  ]);
  for (const group of staleGroups(groups, subvolumes.join("\n"))) await destroyGroup(group, dir);
}

/** One that is gone already will do: a later kernel removes it with the last of its subvolume, which may be just now. */
export async function destroyGroup(group: string, dir: string): Promise<void> {
  try {
    await run("btrfs", ["qgroup", "destroy", group, dir]);
  } catch (error) {
    if (!(error instanceof HostProgramError && error.stderr.includes("No such file or directory"))) throw error;
  }
}

/** The groups in the table of `btrfs qgroup show` whose subvolume is not in the lists of `btrfs subvolume list`. */
export function staleGroups(table: string, subvolumes: string): string[] {
  const alive = new Set([...subvolumes.matchAll(/^ID (\d+) /gm)].map(([, id]) => id));
  const ids = [...table.matchAll(/^0\/(\d+)\s/gm)].map(([, id = ""]) => id);
  return ids.filter((id) => Number(id) >= firstSubvolume && !alive.has(id)).map((id) => `0/${id}`);
}

/** btrfs's own trees have the ids below. */
const firstSubvolume = 256;

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  // Older kernels, and simple quotas, have no such file and no such trouble.
  if (error.code !== "ENOENT" && error.code !== "EINVAL") throw error;
}

const btrfsMagic = 0x9123683e;

async function isBtrfs(path: string): Promise<boolean> {
  return (await statfs(path)).type === btrfsMagic;
}

async function isMounted(dir: string): Promise<boolean> {
  const [inner, outer] = await Promise.all([stat(dir), stat(join(dir, ".."))]);
  return inner.dev !== outer.dev && (await isBtrfs(dir));
}

/** Where the host's disk has no room for a write of the pool's, btrfs takes none any more, also when there is room again. */
function requireWritable(dir: string): void {
  if (!isReadOnly(dir)) return;
  throw new SandboxError(
    "INTERNAL_ERROR",
    `Cannot use the pool "${dir}": btrfs has made it read-only, as it does when the host's disk was full`,
    {
      suggestion: `Make room and start the machine anew; or end what uses the pool (the processes in the control group atoll-<tag>), unmount /run/atoll/<tag>/*/root and "${dir}", and start again`,
    },
  );
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(ignoreMissing)) !== undefined;
}
