import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type Benchmark, type Contestant, inARow, interleave } from "../benchmark.ts";

/** Together enough for a p99 that is not one sample. */
const rounds = 25;
const perRound = 20;
/** Calls before the first that counts: V8 compiles what runs often, and a daemon runs for weeks. */
const warmUp = 400;

export const exec: Benchmark = {
  name: "exec",
  about: "`true` in a sandbox that runs, from the SDK's call to its result",
  async measure({ box, peers }) {
    await using cleanup = new AsyncDisposableStack();
    const sandbox = box();
    cleanup.defer(async () => void (await sandbox.destroy()));
    const contestants: Contestant[] = [
      { what: "atoll, argv", budget: "exec argv", round: () => inARow(perRound, () => sandbox.exec("true", [])) },
      { what: "atoll, session shell", budget: "exec shell", round: () => inARow(perRound, () => sandbox.exec("true")) },
      { what: "node execFile, on the host", round: () => inARow(perRound, () => promisify(execFile)("/bin/true")) },
    ];
    const { runc, docker, bwrap } = peers;
    if (bwrap)
      contestants.push({ what: "bwrap, a new one each", round: () => inARow(perRound, () => bwrap.runTrue()) });
    if (runc) {
      const sleeper = cleanup.use(await runc.startSleeper());
      contestants.push({ what: "runc exec", round: () => inARow(2, () => sleeper.execTrue()) });
    }
    if (docker) {
      await docker.ready();
      const run = ["run", "--detach", "--init", "--network", "none", "base", "sleep", "1000000"];
      const id = (await docker.docker(...run)).trim();
      cleanup.defer(async () => void (await docker.docker("rm", "--force", id)));
      contestants.push({
        what: "docker exec",
        round: () => inARow(2, () => docker.docker("exec", id, "/bin/true")),
      });
    }
    for (const { round } of contestants.slice(0, 3)) {
      for (let at = 0; at < warmUp / perRound; at++) await round(0);
    }
    return await interleave(contestants, rounds);
  },
};
