import { createHash, randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { SandboxError } from "../../protocol/errors.ts";
import { run } from "../linux/run.ts";
import { buildRoot, type BuildOptions } from "./build.ts";
import { bundleOfHost, bundleOfRoot, mergeBundles, stampOfHost } from "./ca-bundle.ts";
import { readHolders, writeHolder } from "./holders.ts";
import { lockFile, tryLockFile } from "./lock.ts";
import { readRecipe } from "./recipe.ts";
import { readTree, shiftTree } from "./tree.ts";
import { readIfThere, syncDirectory, writeDurably, writeWholeFile } from "./whole-file.ts";

/** A read-only root file system in the machine's store. */
export type Image = {
  /** The name that points at it; undefined when a newer image has taken the name. */
  name?: string;
  /** "sha256:" and 64 hexadecimal digits. */
  digest: string;
  /** Its files, shifted to `uidBase`. Never written again. */
  rootDir: string;
  sizeBytes: number;
  files: number;
  createdAt: Date;
  /** Which recipe made it; undefined for an imported tree. */
  recipeHash?: string;
};

export type ImagesOptions = {
  /** Host uid of the sandboxes' root. An image is shifted once, so the whole machine has one. Default 1,900,000,000. */
  uidBase?: number;
  /** Where recipes lie; default: `images/` of this checkout. */
  recipesDir?: string;
  /** A file with certificates that this machine trusts besides its bundle: the daemon's NODE_EXTRA_CA_CERTS. */
  extraCaFile?: string;
};

/** Beyond the ranges of subuid files and of systemd. */
export const defaultUidBase = 1_900_000_000;

/** Opens the machine's store, made when missing, and removes what killed builders left in it. */
export async function openImages(storeDir: string, options: ImagesOptions = {}): Promise<Images> {
  // 0711: the sandboxes' root, who owns nothing on the way, must be able to pass through to the image.
  for (const dir of ["images", "names", "building", "holders", "ca"]) {
    await mkdir(join(storeDir, dir), { recursive: true, mode: 0o711 });
  }
  for (const dir of ["", "images", "ca"]) await chmod(join(storeDir, dir), 0o711);
  await using lock = await tryLockFile(buildLock(storeDir));
  // Who holds the lock is building now, and has swept before.
  if (lock) await sweep(storeDir);
  return new Images(storeDir, options);
}

/**
 * The machine's store of images, shared by all its daemons and by `setup`:
 *
 *     images/<hex>/{root/,image.json,ca.pem}   one image, whole, by digest
 *     names/<name>                             the digest that a name stands for
 *     holders/<tag>.json                       which images the disks of a daemon need
 *     ca/<hash>.pem                            bundles made for sandboxes, by content
 *     building/                                what is not finished, or on its way out
 */
export class Images {
  readonly #storeDir: string;
  readonly #uidBase: number;
  readonly #recipesDir: string;
  readonly #extraCaFile: string | undefined;
  /** Digest to the bundle made last, and the state of the host's files that it was made of. */
  readonly #bundles = new Map<string, { stamp: string; path: string }>();

  constructor(storeDir: string, options: ImagesOptions) {
    this.#storeDir = storeDir;
    this.#uidBase = options.uidBase ?? defaultUidBase;
    this.#recipesDir = options.recipesDir ?? fileURLToPath(import.meta.resolve("../../images"));
    this.#extraCaFile = options.extraCaFile;
  }

  /** All whole images, the newest first. */
  async list(): Promise<Image[]> {
    const names = await this.#names();
    const found = await Promise.all(
      (await readdir(join(this.#storeDir, "images"))).map((hex) => this.#read(hex, names)),
    );
    return found.filter((image) => image !== undefined).sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime());
  }

  /** The image of this name, or with this digest. */
  async find(nameOrDigest: string): Promise<Image | undefined> {
    const digest = isDigest(nameOrDigest) ? nameOrDigest : await this.#digestOf(nameOrDigest);
    return digest === undefined ? undefined : await this.#read(hexOf(digest), await this.#names());
  }

  /** Whether the name stands for an image made by the recipe as it is today. */
  async isCurrent(name: string): Promise<boolean> {
    const [image, recipe] = await Promise.all([this.find(name), readRecipe(this.#recipesDir, name)]);
    return image?.recipeHash === recipe.hash;
  }

  /**
   * Builds the recipe `name` and lets the name stand for the result; whole or not at all. When another builder is at work
   * this one waits, and takes what the other has made of the same recipe meanwhile. Sandboxes keep the image they have.
   */
  async build(name: string, options: BuildOptions = {}): Promise<Image> {
    const { onStep = () => {}, signal } = options;
    const recipe = await readRecipe(this.#recipesDir, name);
    const before = await this.#digestOf(name);
    let waited = false;
    const onWait = () => {
      waited = true;
      onStep("waiting for another build");
    };
    await using lock = await lockFile(buildLock(this.#storeDir), { onWait, ...(signal && { signal }) });
    if (waited && (await this.#digestOf(name)) !== before) {
      const made = await this.find(name);
      if (made?.recipeHash === recipe.hash) return made;
    }
    await sweep(this.#storeDir);
    await using undo = new AsyncDisposableStack();
    const work = join(this.#storeDir, "building", unique());
    await mkdir(join(work, "root"), { recursive: true, mode: 0o700 });
    undo.defer(() => removeTree(work));
    await buildRoot(recipe, work, lock, options);
    onStep("importing");
    const digest = await this.#import(work, { recipeHash: recipe.hash }, signal);
    await this.#setName(name, digest);
    onStep("done");
    return (await this.find(digest))!;
  }

  /**
   * Takes a finished root file system into the store and gives it a name. The directory must lie in the store's own
   * file system, belong to nobody else, and is gone afterwards.
   */
  async importTree(dir: string, name: string, signal?: AbortSignal): Promise<Image> {
    await using _lock = await lockFile(buildLock(this.#storeDir), signal ? { signal } : {});
    await using undo = new AsyncDisposableStack();
    const work = join(this.#storeDir, "building", unique());
    await mkdir(work, { mode: 0o700 });
    undo.defer(() => removeTree(work));
    await rename(dir, join(work, "root"));
    const digest = await this.#import(work, {}, signal);
    await this.#setName(name, digest);
    return (await this.find(digest))!;
  }

  /** Removes an image and its name. Throws IMAGE_NOT_FOUND, or RESOURCE_BUSY while a daemon of this machine holds it. */
  async remove(nameOrDigest: string): Promise<void> {
    await using _lock = await lockFile(holdersLock(this.#storeDir));
    const image = await this.find(nameOrDigest);
    if (!image)
      throw new SandboxError("IMAGE_NOT_FOUND", `Cannot remove image "${nameOrDigest}": there is no such image`);
    for (const holder of await readHolders(this.#storeDir)) {
      if (!holder.digests.includes(image.digest)) continue;
      throw new SandboxError(
        "RESOURCE_BUSY",
        `Cannot remove image "${nameOrDigest}": disks in "${holder.dataDir}" are made on it`,
        {
          suggestion: "Destroy the sandboxes that use it first",
        },
      );
    }
    if (image.name !== undefined) await rm(join(this.#storeDir, "names", image.name), { force: true });
    // Out of the way at once; a crash meanwhile leaves rubbish that the next opener sweeps.
    const doomed = join(this.#storeDir, "building", unique());
    await rename(join(this.#storeDir, "images", hexOf(image.digest)), doomed);
    await removeTree(doomed);
  }

  /** Removes the images that have lost their name to a newer one and that no daemon holds; gives their digests. */
  async prune(): Promise<string[]> {
    const removed: string[] = [];
    for (const { name, digest } of await this.list()) {
      if (name !== undefined) continue;
      try {
        await this.remove(digest);
        removed.push(digest);
      } catch (error) {
        if (!SandboxError.is(error, "RESOURCE_BUSY")) throw error;
      }
    }
    return removed;
  }

  /**
   * Says which images the disks of one daemon need; replaces what it said before. An image that is held is not removed. Call it
   * before the first disk on an image is made, and when the last one is gone. Throws IMAGE_NOT_FOUND for one that is not there.
   */
  async hold(holder: { tag: string; dataDir: string }, digests: readonly string[]): Promise<void> {
    await using _lock = await lockFile(holdersLock(this.#storeDir));
    const held = (await readHolders(this.#storeDir)).find(({ tag }) => tag === holder.tag)?.digests ?? [];
    for (const digest of digests) {
      // What it held already may be gone by force: its disks must still be listed.
      if (held.includes(digest) || (await this.find(digest))) continue;
      throw new SandboxError("IMAGE_NOT_FOUND", `Cannot use image "${digest}": it is not in the store`);
    }
    await writeHolder(this.#storeDir, { version: 1, ...holder, digests: [...digests] });
  }

  /**
   * A read-only file with the certificates that a sandbox of this image trusts: the image's own and the host's, as the
   * host's are now. Its name is made from its content, so runs keep what they started with.
   */
  async caBundle(image: Image): Promise<string> {
    const stamp = await stampOfHost(this.#extraCaFile);
    const made = this.#bundles.get(image.digest);
    if (made?.stamp === stamp) return made.path;
    const own = (await readIfThere(join(this.#storeDir, "images", hexOf(image.digest), "ca.pem"))) ?? "";
    const merged = mergeBundles([own, await bundleOfHost(this.#extraCaFile)]);
    const path = join(this.#storeDir, "ca", `${sha256(merged)}.pem`);
    if ((await readIfThere(path)) !== merged) await writeWholeFile(path, merged, 0o444);
    this.#bundles.set(image.digest, { stamp, path });
    return path;
  }

  async #import(work: string, made: { recipeHash?: string }, signal?: AbortSignal): Promise<string> {
    const root = join(work, "root");
    await writeDurably(join(work, "ca.pem"), mergeBundles([await bundleOfRoot(root)]), 0o444);
    const tree = await readTree(root, signal);
    await shiftTree(root, tree, this.#uidBase);
    const { digest, sizeBytes, entries } = tree;
    const createdAt = new Date().toISOString();
    const meta = {
      version: 1,
      digest,
      sizeBytes,
      files: entries.length,
      createdAt,
      uidBase: this.#uidBase,
      ...made,
    } as const;
    await writeDurably(join(work, "image.json"), JSON.stringify(meta satisfies ImageMeta));
    await chmod(work, 0o711);
    // One call for all files of the tree; a name in images/ promises that everything below it is on the disk.
    await run("sync", ["--file-system", work]);
    const target = join(this.#storeDir, "images", hexOf(digest));
    try {
      await rename(work, target);
    } catch (error) {
      // The same tree is there already: that one stays, sandboxes may run on it.
      if ((error as NodeJS.ErrnoException).code !== "ENOTEMPTY") throw error;
      await writeWholeFile(join(target, "image.json"), JSON.stringify(meta));
    }
    await syncDirectory(join(this.#storeDir, "images"));
    return digest;
  }

  async #read(hex: string, names: ReadonlyMap<string, string>): Promise<Image | undefined> {
    const dir = join(this.#storeDir, "images", hex);
    const text = await readIfThere(join(dir, "image.json"));
    if (text === undefined) return undefined;
    const { version: _, uidBase, createdAt, ...meta } = ImageMeta.parse(JSON.parse(text));
    if (uidBase !== this.#uidBase) {
      throw new Error(
        `Cannot use image ${meta.digest}: its files belong to uids from ${uidBase}, this daemon's sandboxes begin at ${this.#uidBase}. Give it the same uidBase or a store of its own`,
      );
    }
    const name = names.get(meta.digest);
    const { recipeHash, ...rest } = meta;
    return {
      ...rest,
      ...(recipeHash !== undefined && { recipeHash }),
      ...(name !== undefined && { name }),
      rootDir: join(dir, "root"),
      createdAt: new Date(createdAt),
    };
  }

  async #digestOf(name: string): Promise<string | undefined> {
    if (!namePattern.test(name)) return undefined;
    const digest = (await readIfThere(join(this.#storeDir, "names", name)))?.trim();
    return digest !== undefined && isDigest(digest) ? digest : undefined;
  }

  /** Digest to name. */
  async #names(): Promise<Map<string, string>> {
    const names = (await readdir(join(this.#storeDir, "names"))).filter((name) => namePattern.test(name));
    const pairs = await Promise.all(names.map(async (name) => [await this.#digestOf(name), name] as const));
    return new Map(pairs.filter((pair): pair is [string, string] => pair[0] !== undefined));
  }

  async #setName(name: string, digest: string): Promise<void> {
    if (!namePattern.test(name))
      throw new TypeError(`Cannot name an image "${name}": lower-case letters, digits, ".", "-", "_" only`);
    await writeWholeFile(join(this.#storeDir, "names", name), `${digest}\n`);
  }
}

const digestPattern = /^sha256:[0-9a-f]{64}$/;
/** File names that never begin with a dot nor end like a temporary file. */
const namePattern = /^[a-z0-9][a-z0-9._-]{0,62}(?<!\.tmp)$/;

const ImageMeta = z.object({
  version: z.literal(1),
  digest: z.string().regex(digestPattern),
  sizeBytes: z.number(),
  files: z.number(),
  createdAt: z.string(),
  uidBase: z.number(),
  recipeHash: z.string().exactOptional(),
});
type ImageMeta = z.infer<typeof ImageMeta>;

function isDigest(text: string): boolean {
  return digestPattern.test(text);
}

function hexOf(digest: string): string {
  return digest.slice("sha256:".length);
}

function buildLock(storeDir: string): string {
  return join(storeDir, "build.lock");
}

/** Apart from the builders' lock: who makes a sandbox does not wait for a build. */
function holdersLock(storeDir: string): string {
  return join(storeDir, "holders.lock");
}

async function sweep(storeDir: string): Promise<void> {
  const dir = join(storeDir, "building");
  for (const name of await readdir(dir)) await removeTree(join(dir, name));
}

/** rm(1): Node's own takes four times as long for a whole root file system. */
async function removeTree(path: string): Promise<void> {
  await run("rm", ["-rf", "--one-file-system", path]);
}

function unique(): string {
  return randomBytes(8).toString("hex");
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
