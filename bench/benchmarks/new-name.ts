import { type Benchmark, type Contestant, interleave, timed } from "../benchmark.ts";

export const newName: Benchmark = {
  name: "new",
  about: "a name that nobody had before, to the result of its first command (disk, network, limits, agent)",
  async measure({ box, peers: { docker, runc, bwrap } }) {
    const contestants: Contestant[] = [
      {
        what: "atoll",
        budget: "new name",
        async round() {
          await using cleanup = new AsyncDisposableStack();
          const sandbox = box();
          cleanup.defer(async () => void (await sandbox.destroy()));
          return await timed(() => sandbox.exec("true", []));
        },
      },
    ];
    if (runc) contestants.push({ what: "runc run", round: () => timed(() => runc.runTrue()) });
    if (bwrap) contestants.push({ what: "bwrap", round: () => timed(() => bwrap.runTrue()) });
    if (docker) {
      await docker.ready();
      const run = ["run", "--rm", "--network", "none", "base", "/bin/true"];
      contestants.push({ what: "docker run", every: 3, round: () => timed(() => docker.docker(...run)) });
    }
    return interleave(contestants, 60);
  },
};
