import { closeSync } from "node:fs";
import { libc, must } from "./libc.ts";

/**
 * Bounds the tmpfs at `target` anew. mount(2) changes only what is mounted where the caller lives; these calls take the
 * file system itself, so `target` may lead through `/proc/<pid>/root` into a run. Throws when it is no mount's root, and
 * when more is in it than the new bound.
 */
export function resizeTmpfs(target: string, sizeBytes: number): void {
  const what = `resize the tmpfs at "${target}"`;
  const context = fspick(FSPICK, AT_FDCWD, target, FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW);
  must(context, what);
  try {
    must(fsconfig(FSCONFIG, context, FSCONFIG_SET_STRING, "size", `${Math.floor(sizeBytes / 1024)}k`, 0), what);
    must(fsconfig(FSCONFIG, context, FSCONFIG_CMD_RECONFIGURE, null, null, 0), what);
  } finally {
    closeSync(context);
  }
}

/** By number: the C library has had names for them since glibc 2.36 only. */
const fspick = libc.func("int syscall(long number, long dir, const char *path, long flags)") as (
  number: number,
  dir: number,
  path: string,
  flags: number,
) => number;
const fsconfig = libc.func(
  "int syscall(long number, long fd, long command, const char *key, const char *value, long aux)",
) as (number: number, fd: number, command: number, key: string | null, value: string | null, aux: number) => number;

/** The same on x86-64 and arm64. */
const FSCONFIG = 431;
const FSPICK = 433;
const AT_FDCWD = -100;
const FSPICK_CLOEXEC = 1;
const FSPICK_SYMLINK_NOFOLLOW = 2;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_RECONFIGURE = 7;
