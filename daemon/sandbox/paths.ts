import { join } from "node:path";

/** Where a run's resources lie on the host: `<runDir>/<run>/…`, all of it ours but what the mounts hold. */
export type RunPaths = {
  dir: string;
  /** The mounted root file system. */
  root: string;
  /** The tmpfs with the agent's socket. */
  link: string;
  /** `hosts`, `hostname`, `resolv.conf`. */
  etc: string;
  /** The OCI bundle: config.json. */
  bundle: string;
};

export function runPaths(runDir: string, run: string): RunPaths {
  const dir = join(runDir, run);
  return { dir, root: join(dir, "root"), link: join(dir, "link"), etc: join(dir, "etc"), bundle: join(dir, "bundle") };
}

export const caPathInside = "/run/atoll/ca.pem";

/** Where commands start, and paths of calls without a session. */
export const workspace = "/workspace";
