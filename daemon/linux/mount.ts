import { accessSync, constants, readFileSync } from "node:fs";
import { systemCall } from "./libc.ts";

export type OverlayMount = {
  lower: string;
  upper: string;
  work: string;
  target: string;
  /** False: renaming a directory of the image is refused (EXDEV), and what lies in the upper directory is all there is of it. */
  redirects?: boolean;
};

/**
 * Mounts image and disk over each other. The options are part of the disk's format: one disk always has the same.
 * Throws when a path holds a character that the mount option syntax cannot carry.
 */
export async function mountOverlay({ lower, upper, work, target, redirects = true }: OverlayMount): Promise<void> {
  for (const path of [lower, upper, work]) {
    if (/[,:\\"\s]/.test(path)) {
      throw new Error(
        `Cannot mount the overlay at "${target}": "${path}" holds a comma, colon, quote, backslash or space`,
      );
    }
  }
  const layers = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
  await mount(
    `mount the overlay at "${target}"`,
    "overlay",
    target,
    "overlay",
    0,
    `${layers},${overlayOptions(redirects)}`,
  );
}

/**
 * redirect_dir=on: directories of the image can be renamed (EXDEV otherwise). nofollow: none can, and none is believed. index=off: the disk may be cloned and moved.
 * metacopy=off: a file in the disk is whole, so a disk means the same without its image's inodes. xino=auto: stable inode numbers.
 */
function overlayOptions(redirects: boolean): string {
  return `redirect_dir=${redirects ? "on" : "nofollow"},index=off,metacopy=off,xino=auto`;
}

export type TmpfsMount = { target: string; sizeBytes: number; inodes: number; uid: number; gid: number; mode: number };

/** Mounts a bounded tmpfs without devices, set-uid or execution. */
export async function mountTmpfs({ target, sizeBytes, inodes, uid, gid, mode }: TmpfsMount): Promise<void> {
  const bounds = `size=${sizeBytes},nr_inodes=${inodes},uid=${uid},gid=${gid},mode=${mode.toString(8)}`;
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  await mount(`mount a tmpfs at "${target}"`, "tmpfs", target, "tmpfs", flags, bounds);
}

/** Shows `source` at `target`, read-only, without devices or set-uid. */
export async function bindReadOnly(source: string, target: string): Promise<void> {
  const what = `show "${source}" at "${target}"`;
  await mount(what, source, target, null, MS_BIND, null);
  // The kernel takes a bind's options only when it is mounted already.
  await mount(what, null, target, null, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, null);
}

/** Whether nobody can write there, whatever was asked for. */
export function isReadOnly(target: string): boolean {
  try {
    accessSync(target, constants.W_OK);
    return false;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EROFS") return true;
    throw error;
  }
}

/**
 * Takes the mount at `target` away. Not mounted is as good as unmounted ("gone").
 * A busy mount is an error. With a `signal` it is tried again until the signal says that it is enough, and then, as the last resort, detached
 * lazily: "lazy" means that somebody on the host still holds it, and what lies below must not be mounted again until it is released.
 */
export async function unmount(target: string, signal?: AbortSignal): Promise<"unmounted" | "gone" | "lazy"> {
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
    try {
      await umount(`unmount "${target}"`, target, UMOUNT_NOFOLLOW);
      return "unmounted";
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EINVAL" || code === "ENOENT") return "gone"; // not mounted; not even there
      if (!signal || code !== "EBUSY") throw error;
    }
    if (signal.aborted) break;
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  await umount(`detach "${target}"`, target, UMOUNT_NOFOLLOW | MNT_DETACH);
  return "lazy";
}

/** One line of /proc/self/mountinfo (proc(5)); paths are decoded. */
export type Mount = {
  id: number;
  parentId: number;
  /** Path inside the file system that is mounted here. */
  root: string;
  target: string;
  options: string[];
  type: string;
  source: string;
  superOptions: string[];
};

/** The mounts at or below `prefix` (a path without trailing slash; default: all), in the order they were made. */
export function listMounts(prefix = ""): Mount[] {
  const below = (target: string) => prefix === "" || target === prefix || target.startsWith(`${prefix}/`);
  return parseMountinfo(readFileSync("/proc/self/mountinfo", "latin1")).filter((mount) => below(mount.target));
}

/** Parses mountinfo read as latin1: the kernel escapes blanks, newlines and backslashes as octal, all else is raw bytes. */
export function parseMountinfo(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const fields = line.split(" ");
    // Any number of optional fields, then a lone hyphen.
    const end = fields.indexOf("-", 6);
    const [id, parentId, , root, target, options] = fields;
    const [type, source, superOptions] = fields.slice(end + 1);
    if (end < 0 || root === undefined || target === undefined || type === undefined) return [];
    return {
      id: Number(id),
      parentId: Number(parentId),
      root: decode(root),
      target: decode(target),
      options: (options ?? "").split(","),
      type,
      source: decode(source ?? ""),
      superOptions: (superOptions ?? "").split(","),
    };
  });
}

const mount = systemCall<
  [source: string | null, target: string, type: string | null, flags: number, options: string | null]
>("int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *options)");

const umount = systemCall<[target: string, flags: number]>("int umount2(const char *target, int flags)");

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_REMOUNT = 32;
const MS_BIND = 4096;

function decode(field: string): string {
  const bytes = field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return Buffer.from(bytes, "latin1").toString("utf8");
}
