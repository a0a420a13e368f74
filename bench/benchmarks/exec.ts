import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type Benchmark, type Contestant, interleave, timed } from "../benchmark.ts";

/** Enough for a p99 that is not one sample; those that take tens of milliseconds take part in every tenth round. */
const rounds = 400;

export const exec: Benchmark = {
  name: "exec",
  about: "`true` in a sandbox that runs, from the SDK's call to its result",
  async measure({ box, peers }) {
    await using cleanup = new AsyncDisposableStack();
    const sandbox = box();
    cleanup.defer(async () => void (await sandbox.destroy()));
    const contestants: Contestant[] = [
      { what: "atoll, argv", budget: "exec argv", round: () => timed(() => sandbox.exec("true", [])) },
      { what: "atoll, session shell", budget: "exec shell", round: () => timed(() => sandbox.exec("true")) },
      { what: "node execFile, on the host", round: () => timed(() => promisify(execFile)("/bin/true")) },
    ];
    const { runc, docker, bwrap } = peers;
    if (bwrap) contestants.push({ what: "bwrap, a new one each", round: () => timed(() => bwrap.runTrue()) });
    if (runc) {
      const sleeper = cleanup.use(await runc.startSleeper());
      contestants.push({ what: "runc exec", every: 10, round: () => timed(() => sleeper.execTrue()) });
    }
    if (docker) {
      await docker.ready();
      const run = ["run", "--detach", "--init", "--network", "none", "base", "sleep", "1000000"];
      const id = (await docker.docker(...run)).trim();
      cleanup.defer(async () => void (await docker.docker("rm", "--force", id)));
      contestants.push({
        what: "docker exec",
        every: 10,
        round: () => timed(() => docker.docker("exec", id, "/bin/true")),
      });
    }
    return await interleave(contestants, rounds);
  },
};
