import { type Benchmark, type Contestant, interleave, timed } from "../benchmark.ts";
import { firstStarts } from "../peers/first-starts.ts";

export const newName: Benchmark = {
  name: "new",
  about: "a name that nobody had before, to the result of its first command (disk, network, limits, agent)",
  async measure({ box, peers }) {
    const ours: Contestant = {
      what: "atoll",
      budget: "new name",
      async round() {
        await using cleanup = new AsyncDisposableStack();
        const sandbox = box();
        cleanup.defer(async () => void (await sandbox.destroy()));
        return await timed(() => sandbox.exec("true", []));
      },
    };
    return interleave([ours, ...(await firstStarts(peers))], 60);
  },
};
