import { createHash } from "node:crypto";
import { bootId } from "../linux/process.ts";
import { defaultImage, keptPathsOf, newConfig } from "./config.ts";
import type { Machines } from "./machines.ts";
import type { RunPaths } from "./paths.ts";
import type { SandboxRecord, WarmMake } from "./record.ts";
import { begin, namespaceLimits, type Occupant, specOf, type StartedRun } from "./start.ts";

/** What its processes would call their host, if there were any: a run is given its sandbox's name with the claim. */
const nobodysName = "nobody";

/**
 * What a warm run would be made of now; undefined while there is no base image. Whatever decides about a run and cannot be
 * changed afterwards is in it: the image, the agent, certificates, system calls, capabilities, mounts, and which daemon made it.
 */
export async function describeWarmRun(machines: Machines): Promise<WarmMake | undefined> {
  const image = await machines.images.find(defaultImage);
  if (!image) return undefined;
  const caFile = await machines.images.caBundle(image);
  const spec = specOf(machines, nobody(machines, "", image.digest), {
    paths: nowhere,
    caFile,
    netnsFile: "",
    group: "",
  });
  const text = JSON.stringify([spec, namespaceLimits, machines.config.runtime, machines.version]);
  return { imageDigest: image.digest, hash: createHash("sha256").update(text).digest("hex").slice(0, 16) };
}

/** Starts a run for nobody. Its image must be held. As `startRun`, a failure gives everything back. */
export async function startWarmRun(machines: Machines, make: WarmMake, signal: AbortSignal): Promise<StartedRun> {
  const row = machines.records.beginWarmRun(make, bootId(), Date.now());
  return begin(machines, nobody(machines, row.sandboxKey, make.imageDigest), row, signal);
}

/**
 * Whether a warm run made like this may become this sandbox's: it never had a run, so no disk, and nothing in it decides
 * otherwise about what a run keeps for its life. Its instance, options and variables are given with the claim.
 */
export function mayClaim({ ports }: Machines, sandbox: SandboxRecord, make: WarmMake): boolean {
  if (sandbox.runNumber > 0 || sandbox.lastEnd) return false;
  if (keptPathsOf(sandbox.config)) return false; // its disk is mounted in another way
  if (sandbox.imageDigest !== make.imageDigest || sandbox.config.isolation !== "container") return false;
  return ports.of(sandbox.key).length === 0; // their rows hang on the key it has
}

function nobody({ config }: Machines, key: string, imageDigest: string): Occupant {
  return { key, name: nobodysName, image: defaultImage, imageDigest, config: newConfig({}, config) };
}

const nowhere: RunPaths = { dir: "", root: "", link: "", etc: "", bundle: "" };
