import { closeSync, constants, lstatSync, opendirSync, openSync, rmdirSync, unlinkSync } from "node:fs";
import type { Dirent, Stats } from "node:fs";

/**
 * An open directory whose content somebody hostile has written. Names are taken in it, one at a time and never followed, so
 * nothing in it leads anywhere else, at any depth. A name is its bytes as latin1. Synchronous: for a thread of its own.
 */
export class Directory implements Disposable {
  #fd: number;

  private constructor(path: string | Buffer) {
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  }

  static open(path: string): Directory {
    return new Directory(path);
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Of a name in it, for one call; without a name of the directory itself. */
  at(name = "."): Buffer {
    return Buffer.concat([Buffer.from(`/proc/self/fd/${this.#fd}/`), Buffer.from(name, "latin1")]);
  }

  /** Throws ENOTDIR or ELOOP when it is anything but a directory. */
  enter(name: string): Directory {
    return new Directory(this.at(name));
  }

  /** As `enter`; this one is closed. */
  move(name: string): Directory {
    try {
      return this.enter(name);
    } finally {
      this[Symbol.dispose]();
    }
  }

  stat(name: string): Stats | undefined {
    return lstatSync(this.at(name), { throwIfNoEntry: false });
  }

  /** Entries may be removed while they are read. */
  *entries(): Generator<Dirent> {
    const open = opendirSync(this.at() as unknown as string, { encoding: "latin1", bufferSize: 256 });
    try {
      for (let entry = open.readSync(); entry; entry = open.readSync()) yield entry;
    } finally {
      open.closeSync();
    }
  }

  /** Removes what has this name, whatever it is, with all that is in it. */
  remove(name: string, isDirectory: boolean): void {
    if (!isDirectory) unlinkSync(this.at(name));
    else if (!this.#removedEmpty(name)) this.#removeTree(name);
  }

  /** Not recursive: one descriptor and one name for each level, because a tree may be deeper than any stack. */
  #removeTree(name: string): void {
    const names = [name];
    let here = this.enter(name);
    try {
      for (;;) {
        const full = here.#removeAllButFull();
        if (full !== undefined) {
          names.push(full);
          here = here.move(full);
          continue;
        }
        const emptied = names.pop()!;
        if (names.length === 0) break;
        here = here.move("..");
        rmdirSync(here.at(emptied));
      }
    } finally {
      here[Symbol.dispose]();
    }
    rmdirSync(this.at(name));
  }

  /** The first directory in it that is not empty; undefined when none was and all is removed. */
  #removeAllButFull(): string | undefined {
    for (const entry of this.entries()) {
      if (!entry.isDirectory()) unlinkSync(this.at(entry.name));
      else if (!this.#removedEmpty(entry.name)) return entry.name;
    }
    return undefined;
  }

  #removedEmpty(name: string): boolean {
    try {
      rmdirSync(this.at(name));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOTEMPTY") return false;
      throw error;
    }
  }
}
