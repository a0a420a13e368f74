import koffi from "koffi";
import { libc, must, nameOfErrno } from "./libc.ts";

/**
 * What overlayfs writes on an upper directory beside the files themselves. It is read and written only while the overlay is not
 * mounted. Paths are bytes, and the last name of one is never followed. All calls are synchronous: they belong into a thread.
 *
 * The names start with `trusted.`, which only root of the host can write: nothing inside a sandbox can forge one. (With the mount
 * option `userxattr`, which we never use, they would start with `user.`.)
 */

/** A directory that hides the image's directory at the same place. */
export function isOpaque(path: Buffer): boolean {
  return has(path, opaque);
}

export function setOpaque(path: Buffer): void {
  set(path, opaque, Buffer.from("y"));
}

export function clearOpaque(path: Buffer): void {
  if (isOpaque(path)) remove(path, opaque);
}

/**
 * Says that a directory was made for one of the image's, whichever. overlayfs would say so itself when it first looks at one without,
 * and on a full disk the look would fail with EDQUOT.
 */
export function setUnknownOrigin(path: Buffer): void {
  if (!has(path, origin)) set(path, origin, Buffer.alloc(0));
}

/** A directory without this mark holds no file that has an origin. */
export function isImpure(path: Buffer): boolean {
  return has(path, "trusted.overlay.impure");
}

/** Cuts a file's tie to the file of the image that it was copied from; it is like one that was made new. */
export function forgetOrigin(path: Buffer): void {
  if (has(path, origin)) remove(path, origin);
}

/** Hides what the image has at this place. */
export function makeWhiteout(path: Buffer): void {
  must(calls.mknod(ended(path), S_IFCHR, 0), `make the whiteout "${words(path)}"`);
}

const opaque = "trusted.overlay.opaque";
const origin = "trusted.overlay.origin";

function set(path: Buffer, name: string, value: Buffer): void {
  must(calls.set(ended(path), name, value, value.length, 0), `set ${name} of "${words(path)}"`);
}

function has(path: Buffer, name: string): boolean {
  if (calls.get(ended(path), name, null, 0) >= 0) return true;
  const code = nameOfErrno(koffi.errno());
  if (code === "ENODATA") return false;
  throw Object.assign(new Error(`Cannot read ${name} of "${words(path)}": ${code}`), { code });
}

function remove(path: Buffer, name: string): void {
  must(calls.remove(ended(path), name), `remove ${name} of "${words(path)}"`);
}

/** As C reads it. */
function ended(path: Buffer): Buffer {
  return Buffer.concat([path, Buffer.alloc(1)]);
}

function words(path: Buffer): string {
  return path.toString();
}

const calls = {
  get: libc.func("long lgetxattr(const uint8_t *path, const char *name, uint8_t *value, size_t size)") as Get,
  set: libc.func(
    "int lsetxattr(const uint8_t *path, const char *name, const uint8_t *value, size_t size, int flags)",
  ) as Set,
  remove: libc.func("int lremovexattr(const uint8_t *path, const char *name)") as Remove,
  mknod: libc.func("int mknod(const uint8_t *path, uint32_t mode, uint64_t device)") as Mknod,
};
type Get = (path: Buffer, name: string, value: null, size: number) => number;
type Set = (path: Buffer, name: string, value: Buffer, size: number, flags: number) => number;
type Remove = (path: Buffer, name: string) => number;
type Mknod = (path: Buffer, mode: number, device: number) => number;

const S_IFCHR = 0o020000;
