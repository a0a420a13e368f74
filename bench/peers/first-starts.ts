import { type Contestant, timed } from "../benchmark.ts";
import type { Peers } from "./peers.ts";

/** What the peers that are installed take for a container that nobody had before, to the end of its `true`. */
export async function firstStarts({ docker, runc, bwrap }: Peers): Promise<Contestant[]> {
  const contestants: Contestant[] = [];
  if (runc) contestants.push({ what: "runc run", round: () => timed(() => runc.runTrue()) });
  if (bwrap) contestants.push({ what: "bwrap", round: () => timed(() => bwrap.runTrue()) });
  if (docker) {
    await docker.ready();
    const run = ["run", "--rm", "--network", "none", "base", "/bin/true"];
    contestants.push({ what: "docker run", every: 3, round: () => timed(() => docker.docker(...run)) });
  }
  return contestants;
}
