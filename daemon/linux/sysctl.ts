import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** The value of a kernel setting ("fs.inotify.max_user_instances"); undefined when this kernel does not have it. */
export function readSysctl(name: string, root = "/proc/sys"): string | undefined {
  try {
    return readFileSync(fileOf(name, root), "utf8").trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Raises a numeric kernel setting to at least `atLeast`; it is never lowered. Gives the values before and after: "after" is what counts,
 * a kernel or a container may refuse. Undefined when this kernel does not have the setting.
 */
export function raiseSysctl(
  name: string,
  atLeast: number,
  root = "/proc/sys",
): { before: number; after: number } | undefined {
  const before = Number(readSysctl(name, root));
  if (!Number.isFinite(before)) return undefined;
  if (before >= atLeast) return { before, after: before };
  try {
    writeFileSync(fileOf(name, root), `${atLeast}\n`);
  } catch (error) {
    // Read-only /proc/sys (a container) or a value above the kernel's own bound: told by "after".
    if (!["EACCES", "EPERM", "EROFS", "EINVAL"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  }
  return { before, after: Number(readSysctl(name, root)) };
}

/** Dots part the words; a slash in a word (an interface named "eth0.1") stands for a dot, as in sysctl(8). */
function fileOf(name: string, root: string): string {
  return join(root, ...name.split(".").map((word) => word.replaceAll("/", ".")));
}
