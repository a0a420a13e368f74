import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { SandboxError } from "../../protocol/errors.ts";
import { readIfThere } from "./whole-file.ts";

/**
 * `recipe.json` of an image, see docs/images.md. Beside it may lie `root/`, files that are laid over the finished root
 * file system as they are.
 */
const RecipeFile = z.strictObject({
  version: z.literal(1),
  description: z.string(),
  /** "system": a small Debian or Ubuntu with its package manager. "files": the named packages' files and nothing else. */
  kind: z.enum(["system", "files"]),
  /** apt packages, grouped by the reason they are there. */
  packages: z.record(z.string(), z.array(z.string().regex(/^[a-z0-9][a-z0-9+.-]+$/))),
  /** Node 24 (the one that runs Atoll) and npm. */
  node: z.boolean().default(false),
  /** A user that may become root without a password. */
  user: z.strictObject({ name: z.string().regex(/^[a-z][a-z0-9-]*$/), uid: z.int().min(1).max(60_000) }).optional(),
  /** Directories, made with mode 0755 for root. */
  directories: z.array(z.string().startsWith("/")).default([]),
  /** Symbolic links: name to target. */
  links: z.record(z.string().startsWith("/"), z.string()).default({}),
});

export type Recipe = z.infer<typeof RecipeFile> & {
  name: string;
  /** Where `root/` lies, if there is one. */
  filesDir?: string;
  /** Changes with every change of the recipe. */
  hash: string;
};

/** Raise it when bootstrap.ts or furnish.ts make something else of the same recipe: images are then built again. */
const builderVersion = 1;

/** Reads the recipe `<recipesDir>/<name>/`. Throws IMAGE_NOT_FOUND when there is none. */
export async function readRecipe(recipesDir: string, name: string): Promise<Recipe> {
  const dir = join(recipesDir, name);
  const text = /^[a-z0-9][a-z0-9-]*$/.test(name) ? await readIfThere(join(dir, "recipe.json")) : undefined;
  if (text === undefined) {
    throw new SandboxError(
      "IMAGE_NOT_FOUND",
      `Cannot build image "${name}": there is no recipe "${join(dir, "recipe.json")}"`,
    );
  }
  const hash = createHash("sha256").update(`builder ${builderVersion}\0`).update(text);
  const filesDir = join(dir, "root");
  const files = await readdir(filesDir, { recursive: true, withFileTypes: true }).catch(() => undefined); // it is optional
  for (const path of (files ?? [])
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name))
    .sort()) {
    hash.update(`\0${path.slice(filesDir.length)}\0`).update(await readFile(path));
  }
  return { ...RecipeFile.parse(JSON.parse(text)), name, hash: hash.digest("hex"), ...(files && { filesDir }) };
}
