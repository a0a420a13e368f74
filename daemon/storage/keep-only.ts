import {
  clearOpaque,
  forgetOrigin,
  isImpure,
  isOpaque,
  makeWhiteout,
  setOpaque,
  setUnknownOrigin,
} from "../linux/overlay-marks.ts";
import { Directory } from "./directory.ts";

/**
 * Removes everything from an overlay's upper directory but what these absolute paths lead to in it, so that the overlay then shows its image
 * and them: what each path was, it is, also when it was nothing in a directory that was there. Directories on the way to something kept keep
 * owner and mode. A path that a symbolic link or anything else but a directory is in the way of leads nowhere.
 *
 * For an overlay that is not mounted, and was never mounted with redirects. Cut off anywhere, it is done by being called again.
 */
export function keepOnly(upper: string, paths: readonly string[]): void {
  using root = Directory.open(upper);
  keepIn(root, toTree(paths), false);
}

/** What is wanted of a directory: names, and what is wanted of each. */
type Wanted = Map<string, Wanted | "all">;

function toTree(paths: readonly string[]): Wanted {
  const tree: Wanted = new Map();
  for (const path of paths) {
    const names = path.slice(1).split("/");
    const last = toLatin1(names.pop()!);
    let at: Wanted | "all" = tree;
    for (const name of names.map(toLatin1)) {
      const next: Wanted | "all" = at.get(name) ?? new Map<string, Wanted | "all">();
      at.set(name, next);
      at = next;
      if (at === "all") break;
    }
    if (at !== "all") at.set(last, "all");
  }
  return tree;
}

function toLatin1(name: string): string {
  return Buffer.from(name).toString("latin1");
}

/**
 * Whether anything of it is kept. `hidden`: a directory above hid the image, so nothing of the image was to be seen here. That mark
 * goes, or all else that the image has there would stay hidden; before it goes, what is kept below gets one of its own.
 */
function keepIn(dir: Directory, wanted: Wanted, hidden: boolean): boolean {
  const hides = hidden || isOpaque(dir.at());
  for (const entry of dir.entries()) if (!wanted.has(entry.name)) dir.remove(entry.name, entry.isDirectory());
  let kept = false;
  for (const [name, inside] of wanted) {
    if (inside === "all" ? keepAll(dir, name, hides) : keepSome(dir, name, inside, hides)) kept = true;
  }
  if (hides) setUnknownOrigin(dir.at());
  clearOpaque(dir.at());
  return kept;
}

function keepSome(dir: Directory, name: string, wanted: Wanted, hidden: boolean): boolean {
  const found = dir.stat(name);
  if (!found) return false;
  if (found.isDirectory()) {
    using inside = dir.enter(name);
    if (keepIn(inside, wanted, hidden)) return true;
  }
  dir.remove(name, found.isDirectory());
  return false;
}

function keepAll(dir: Directory, name: string, hidden: boolean): boolean {
  const found = dir.stat(name);
  if (!found && !hidden) return false;
  if (!found) makeWhiteout(dir.at(name));
  else if (!found.isDirectory()) forgetOrigin(dir.at(name));
  else {
    if (hidden) setOpaque(dir.at(name));
    forgetOrigins(dir, name);
  }
  return true;
}

/**
 * A file of the image that was changed remembers which one it was, also when it was renamed or linked into a kept directory. Its former
 * place shows the image's file again, and overlayfs takes the two for one: it fails with ESTALE on one, or shows the other's content
 * for it (Linux 6.18: tried). Directories can be left out: without redirects one of the image cannot be renamed.
 */
function forgetOrigins(above: Directory, name: string): void {
  let here = above.enter(name);
  try {
    /** For each level the directories that were not looked at yet: a tree may be deeper than any stack. */
    const pending = [lookAt(here)];
    while (pending.length > 0) {
      const next = pending.at(-1)!.pop();
      if (next === undefined) pending.pop();
      if (pending.length === 0) break;
      here = here.move(next ?? "..");
      if (next !== undefined) pending.push(lookAt(here));
    }
  } finally {
    here[Symbol.dispose]();
  }
}

/** Cuts the ties of the files in this directory, and gives the directories in it. */
function lookAt(dir: Directory): string[] {
  const impure = isImpure(dir.at());
  const directories: string[] = [];
  for (const entry of dir.entries()) {
    if (entry.isDirectory()) directories.push(entry.name);
    else if (impure) forgetOrigin(dir.at(entry.name));
  }
  return directories;
}
