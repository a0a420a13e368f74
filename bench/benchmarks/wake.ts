import { type Benchmark, type Contestant, interleave, timed } from "../benchmark.ts";

/** 400 MB that do not compress, in files of the size that node_modules has on average. */
const fill =
  "mkdir -p /workspace/many && cd /workspace/many && head -c 400M /dev/urandom | split --bytes=25K --suffix-length=5 -";

export const wake: Benchmark = {
  name: "wake",
  about: "a sandbox asleep, with 400 MB in 16,400 files on its disk, to the result of a command; sleeping is not in it",
  async measure({ box, peers: { docker } }) {
    await using cleanup = new AsyncDisposableStack();
    const full = box();
    const empty = box();
    cleanup.defer(async () => void (await Promise.all([full.destroy(), empty.destroy()])));
    await full.exec(fill);
    await empty.exec("true", []);
    const wakes = async (sandbox: typeof full) => {
      await sandbox.stop("SIGKILL");
      return timed(() => sandbox.exec("true", []));
    };
    const contestants: Contestant[] = [
      { what: "atoll, 400 MB", budget: "wake", round: () => wakes(full) },
      { what: "atoll, empty disk", round: () => wakes(empty) },
    ];
    if (docker) {
      await docker.ready();
      const run = ["run", "--detach", "--init", "--network", "none", "base", "sleep", "1000000"];
      const id = (await docker.docker(...run)).trim();
      cleanup.defer(async () => void (await docker.docker("rm", "--force", id)));
      await docker.docker("exec", id, "bash", "-c", fill);
      contestants.push({
        what: "docker start + exec, 400 MB",
        every: 3,
        async round() {
          await docker.docker("stop", "--time", "0", id);
          return timed(async () => {
            await docker.docker("start", id);
            await docker.docker("exec", id, "/bin/true");
          });
        },
      });
    }
    return await interleave(contestants, 30);
  },
};
