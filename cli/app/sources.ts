import { type FSWatcher, watch } from "node:fs";
import { dirname, join } from "node:path";
import { stateOf } from "./watched.ts";

/** Editors write a file in steps, and tools write many; what is quiet for so long is written. */
const quietMs = 100;

/** What may mend a program that does not start: a file that it wants to load, or a directory of such. */
const plausible = /\.([mc]?[jt]sx?|json|wasm|node)$|^[^.]+$/;

/** The files of a program, watched by their directories: editors put another file in a file's place. */
export class Sources implements Disposable {
  /** In which state they were loaded. */
  readonly #states = new Map<string, string>();
  readonly #directories = new Map<string, FSWatcher>();
  /** What has changed since `begin`, perhaps. */
  readonly #touched = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #changed = Promise.withResolvers<string>();
  #isBroken = false;

  add(path: string, state: string): void {
    this.#states.set(path, state);
    this.#watch(dirname(path));
    if (stateOf(path) !== state) this.#touch(path); // before it was watched
  }

  /** The path of a file that is not as it was loaded. */
  changed(): Promise<string> {
    return this.#changed.promise;
  }

  /** The program does not run: any change near its files may mend it. */
  broken(): void {
    this.#isBroken = true;
  }

  /** The program is started again, and tells its files anew. */
  begin(): void {
    clearTimeout(this.#timer);
    this.#touched.clear();
    this.#states.clear();
    this.#changed = Promise.withResolvers();
    this.#isBroken = false;
    // Anew: a directory may be another now. And all of them, because a program that does not start names none.
    const directories = [...this.#directories.keys()];
    this.#close();
    for (const directory of directories) this.#watch(directory);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#close();
  }

  #watch(directory: string): void {
    if (this.#directories.has(directory)) return;
    try {
      const watcher = watch(directory, (_, name) => this.#touch(join(directory, name ?? "")));
      watcher.on("error", () => {}); // it was removed: then the files in it were, which is told
      this.#directories.set(directory, watcher);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  #close(): void {
    for (const watcher of this.#directories.values()) watcher.close();
    this.#directories.clear();
  }

  #touch(path: string): void {
    this.#touched.add(path);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), quietMs);
  }

  #look(): void {
    for (const path of this.#touched) {
      const state = this.#states.get(path);
      const isChange = state === undefined ? this.#isBroken && plausible.test(path) : stateOf(path) !== state;
      if (isChange) this.#changed.resolve(path);
    }
    if (!this.#isBroken) this.#touched.clear();
  }
}
