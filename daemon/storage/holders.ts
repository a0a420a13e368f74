import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeWholeFile } from "./whole-file.ts";

/** A daemon of this machine and the images that its disks are made on. */
export type Holder = z.infer<typeof Holder>;
const Holder = z.object({ version: z.literal(1), tag: z.string(), dataDir: z.string(), digests: z.array(z.string()) });

/** All holders in the store whose data directory is still there: without it there are no disks. */
export async function readHolders(storeDir: string): Promise<Holder[]> {
  const dir = join(storeDir, "holders");
  const names = (await readdir(dir)).filter((name) => name.endsWith(".json"));
  const holders = await Promise.all(
    names.map(async (name) => Holder.parse(JSON.parse(await readFile(join(dir, name), "utf8")))),
  );
  const alive = await Promise.all(holders.map((holder) => readdir(holder.dataDir).catch(() => undefined)));
  return holders.filter((_, index) => alive[index] !== undefined);
}

/** Replaces what this daemon holds; nothing at all takes its file away. */
export async function writeHolder(storeDir: string, holder: Holder): Promise<void> {
  const path = join(storeDir, "holders", `${holder.tag}.json`);
  if (holder.digests.length === 0) await rm(path, { force: true });
  else await writeWholeFile(path, JSON.stringify(holder));
}
