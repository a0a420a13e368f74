import { rm } from "node:fs/promises";
import { join } from "node:path";
import { bootstrap, readMachineApt } from "./bootstrap.ts";
import { fetchNpm, furnish } from "./furnish.ts";
import type { FileLock } from "./lock.ts";
import type { Recipe } from "./recipe.ts";

export type BuildOptions = {
  /** Told in words what is being done. */
  onStep?: (text: string) => void;
  signal?: AbortSignal;
  /** Environment for apt and npm, such as proxy variables. */
  env?: Record<string, string>;
};

/** Makes the recipe's root file system in `<work>/root`, which is there and empty; owners are the host's. */
export async function buildRoot(recipe: Recipe, work: string, lock: FileLock, options: BuildOptions): Promise<void> {
  const { onStep = () => {}, signal, env } = options;
  const apt = await readMachineApt();
  const root = join(work, "root");
  const common = { ...(signal && { signal }), ...(env && { env }) };
  onStep(`fetching ${Object.values(recipe.packages).flat().length} packages and what they need`);
  const [npm] = await Promise.all([
    recipe.node ? fetchNpm(work, common) : undefined,
    bootstrap(recipe, apt, root, { onStep, lockFd: lock.fd, ...common }),
  ]);
  signal?.throwIfAborted();
  onStep("setting up");
  await furnish(recipe, root, { apt, ...(npm && { npm }) });
  if (npm) await rm(npm.archive);
}
