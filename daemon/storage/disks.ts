import { createHash, randomBytes } from "node:crypto";
import { chmod, chown, lstat, mkdir, readdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { SandboxError } from "../../protocol/errors.ts";
import { createSubvolume, deleteSubvolume, limitSubvolume } from "../linux/btrfs.ts";
import { bootId } from "../linux/process.ts";
import { HostProgramError, run } from "../linux/run.ts";
import { keepOnlyAside } from "./keeper.ts";
import { endPool, openPool, type Pool, type PoolOptions } from "./pool.ts";
import { freeSpace, judgeSpace } from "./space.ts";
import { syncDirectory } from "./whole-file.ts";

/** What one sandbox has changed on top of its image. */
export type Disk = {
  id: string;
  /** Digest of the only image that it may be mounted on. */
  image: string;
  /** The overlay's upper and work directory. The daemon mounts them; `keepOnly` alone looks inside. */
  upper: string;
  work: string;
};

export type DisksOptions = PoolOptions & {
  /** Host uid and gid of the sandboxes' root, the owner of every new disk. */
  uidBase: number;
};

/** The disks of one data directory. What an earlier life left half made is removed first. */
export async function openDisks({ uidBase, ...options }: DisksOptions): Promise<Disks> {
  const disks = new Disks(await openPool(options), uidBase);
  await disks.sweep();
  return disks;
}

/**
 * One btrfs subvolume for each disk: `disks/<id>/{meta,upper,work}` in the pool. Disks are made in `new/` and renamed into
 * place, so that under `disks/` each is whole. Callers see to it that one id has one
 * caller at a time, and that a disk is unmounted before it is destroyed.
 *
 * A full pool is ENOSPC from any call that writes, see {@link isNoSpace}.
 */
export class Disks {
  readonly #pool: Pool;
  readonly #uidBase: number;

  constructor(pool: Pool, uidBase: number) {
    this.#pool = pool;
    this.#uidBase = uidBase;
  }

  /** The file systems to watch for free space. */
  get spacePaths(): readonly string[] {
    return this.#pool.spacePaths;
  }

  /** Makes an empty disk. `limitBytes` holds for everything that is written to it, names and attributes included. */
  async create(id: string, { limitBytes, image }: { limitBytes: number; image: string }): Promise<Disk> {
    await this.#make(id, async (dir) => {
      await createSubvolume(dir);
      await limitSubvolume(dir, limitBytes);
      await chmod(dir, 0o711);
      await mkdir(join(dir, "upper"), { mode: 0o755 });
      await chown(join(dir, "upper"), this.#uidBase, this.#uidBase);
      await mkdir(join(dir, "work"), { mode: 0o700 });
      await symlink(JSON.stringify({ version: 1, image } satisfies DiskMeta), join(dir, metaName));
    });
    return this.#disk(id, image);
  }

  /** An existing disk, for mounting on this image. Throws VERSION_MISMATCH when it was made on another. */
  async open(id: string, { image }: { image: string }): Promise<Disk> {
    const meta = await this.#meta(id);
    if (meta.image === image) {
      await rm(join(this.#path(id), keptName), { force: true }); // from now on it is written
      return this.#disk(id, image);
    }
    throw new SandboxError(
      "VERSION_MISMATCH",
      `Cannot open disk "${id}": it was made on image ${meta.image}, not on ${image}`,
      {
        details: { disk: id, madeOn: meta.image, image },
        suggestion: "Give the sandbox the image it was made with, or destroy it and start anew",
      },
    );
  }

  /** The digest of the image that a disk was made on; undefined when there is no such disk. */
  async imageOf(id: string): Promise<string | undefined> {
    return (await this.has(id)) ? (await this.#meta(id)).image : undefined;
  }

  async has(id: string): Promise<boolean> {
    return (await lstat(this.#path(id)).catch(ignoreMissing)) !== undefined;
  }

  /** Ids of all disks, in no order. */
  list(): Promise<string[]> {
    return readdir(join(this.#pool.dir, "disks"));
  }

  /** Takes effect at once, also under a running sandbox; one below what is used refuses every further write. */
  async setLimit(id: string, limitBytes: number): Promise<void> {
    await limitSubvolume(this.#path(id), limitBytes);
  }

  /** Bytes on the disk, as its limit counts them. */
  async usage(id: string): Promise<number> {
    const table = await run("btrfs", ["qgroup", "show", "--raw", "--sync", "-f", this.#path(id)]);
    const usedBytes = /^0\/\d+\s+(\d+)\s/m.exec(table)?.[1];
    if (usedBytes === undefined) throw new Error(`Cannot read the usage of disk "${id}": no quota group in "${table}"`);
    return Number(usedBytes);
  }

  /** A new disk with the content that `from` has now, at the price of an empty one; `from` may be in use. */
  async clone(from: string, to: string, { limitBytes }: { limitBytes: number }): Promise<Disk> {
    const { image } = await this.#meta(from);
    await this.#make(to, async (dir) => {
      await run("btrfs", ["subvolume", "snapshot", this.#path(from), dir]);
      await limitSubvolume(dir, limitBytes);
    });
    return this.#disk(to, image);
  }

  /**
   * Removes from a disk that is not mounted, and never was with redirects, all but these absolute paths. Cut off at any moment, it is finished
   * by the next call; done once, it costs nothing until the disk is opened again. A disk that is not there has nothing to be removed.
   */
  async keepOnly(id: string, paths: readonly string[], { limitBytes }: { limitBytes: number }): Promise<void> {
    if (!(await this.has(id))) return;
    const mark = join(this.#path(id), keptName);
    const hash = createHash("sha256")
      .update(JSON.stringify([bootId(), paths]))
      .digest("hex");
    const before = await readlink(mark).catch(ignoreMissing);
    if (before === hash) return;
    if (before !== undefined) await rm(mark);
    // marks are changed too, which a full disk has no room for
    await this.setLimit(id, Number.MAX_SAFE_INTEGER);
    await keepOnlyAside(join(this.#path(id), "upper"), paths);
    await symlink(hash, mark);
    await this.setLimit(id, limitBytes);
  }

  /**
   * The name is free when this returns, the space a little later. False when there was no such disk. A crash of the host in the
   * next seconds may bring the disk back: whoever opens the disks again destroys those that nobody knows.
   */
  async destroy(id: string): Promise<boolean> {
    // Not renamed away first: in a full pool a rename has no room, and a deletion has.
    if (!(await remove(this.#path(id)))) return false;
    // btrfs begins to free the space with its next commit, in up to 30 s; a pool that is nearly full cannot wait.
    if (judgeSpace(await freeSpace([this.#pool.dir])) !== "enough")
      await run("btrfs", ["filesystem", "sync", this.#pool.dir]);
    return true;
  }

  /** Removes what a killed daemon left half made. Not while other calls are under way. */
  async sweep(): Promise<void> {
    await mkdir(join(this.#pool.dir, "disks"), { recursive: true, mode: 0o711 });
    const unfinished = join(this.#pool.dir, "new");
    await mkdir(unfinished, { recursive: true, mode: 0o700 });
    for (const name of await readdir(unfinished)) await remove(join(unfinished, name));
  }

  /**
   * For `atoll down` (a daemon that only goes leaves all as it is): unmounts the pool and gives its loop device back. A run that
   * still uses a disk keeps both alive until its overlay is unmounted. Nothing can be called afterwards.
   */
  end(): Promise<void> {
    return endPool(this.#pool);
  }

  #path(id: string): string {
    if (!idPattern.test(id)) throw new TypeError(`Cannot use "${id}" as the id of a disk: it is no plain name`);
    return join(this.#pool.dir, "disks", id);
  }

  #disk(id: string, image: string): Disk {
    const dir = this.#path(id);
    return { id, image, upper: join(dir, "upper"), work: join(dir, "work") };
  }

  async #meta(id: string): Promise<DiskMeta> {
    return DiskMeta.parse(JSON.parse(await readlink(join(this.#path(id), metaName))));
  }

  async #make(id: string, fill: (dir: string) => Promise<void>): Promise<void> {
    const target = this.#path(id);
    const unfinished = join(this.#pool.dir, "new", unique());
    await using undo = new AsyncDisposableStack();
    undo.defer(async () => {
      await remove(unfinished);
    });
    await fill(unfinished);
    // A disk that is there is never empty, so this refuses to replace it (ENOTEMPTY).
    await rename(unfinished, target);
    undo.move();
    // Without this a crash of the host takes back a disk whose row is written.
    await syncDirectory(join(this.#pool.dir, "disks"));
  }
}

/** True for the errors that say a disk or the pool is full, as calls and as programs tell it. */
export function isNoSpace(error: unknown): boolean {
  if (error instanceof HostProgramError) return /No space left on device|Disk quota exceeded/.test(error.stderr);
  const number = (error as NodeJS.ErrnoException | null)?.errno;
  // By number: Node has no name for EDQUOT, its `code` is "Unknown system error -122".
  return number === -constants.errno.ENOSPC || number === -constants.errno.EDQUOT;
}

/**
 * A symbolic link whose target is JSON and leads nowhere: its text is in the same btrfs transaction as the disk itself, a file's
 * content is not. So one commit makes a disk durable (two cost 5 ms more), and no crash leaves a disk without it.
 */
const metaName = "meta";
const DiskMeta = z.object({ version: z.literal(1), image: z.string() });
type DiskMeta = z.infer<typeof DiskMeta>;

/**
 * A symbolic link that says: nobody has written on the disk since all was removed from it but the paths that its target is the hash of. The
 * boot is hashed too, because a power failure may bring back what was removed, or the link.
 */
const keptName = "kept";

/** Ids become directory names. */
const idPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

/** The name goes in one step, the content in the background. False when there is none. */
async function remove(dir: string): Promise<boolean> {
  try {
    await deleteSubvolume(dir);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

function unique(): string {
  return randomBytes(8).toString("hex");
}
