import { getSandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../../test/support/daemon.ts";
import { runRowOf, untilWarm } from "../../test/support/warm-pool.ts";
import { type Benchmark, type Contestant, interleave, timed } from "../benchmark.ts";
import { firstStarts } from "../peers/first-starts.ts";

/** As many as a daemon keeps when nobody says otherwise. */
const size = 4;

export const warm: Benchmark = {
  name: "warm",
  about: `a new name to the result of its first command, when a run waits for it in a pool of ${size} that is full`,
  async measure({ box, peers }) {
    await using daemon = await TestDaemon.start({
      env: { ATOLL_LOG_LEVEL: "info", ATOLL_WARM_POOL: String(size) },
    });
    const connection = daemon.connect();
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => connection.close());
    const awake = getSandbox(connection, "awake");
    await awake.exec("true", []);
    let names = 0;
    const contestants: Contestant[] = [
      {
        what: "atoll, from the pool",
        budget: "warm start",
        async round() {
          await untilWarm(daemon.dataDir, size);
          await using after = new AsyncDisposableStack();
          const sandbox = getSandbox(connection, `w${++names}`);
          after.defer(async () => void (await sandbox.destroy()));
          const tookMs = await timed(() => sandbox.exec("true", []));
          if (!runRowOf(daemon.dataDir, sandbox.id)?.waited_ms) throw new Error(`${sandbox.id} has a run of its own`);
          return tookMs;
        },
      },
      { what: "atoll, one that runs already", round: () => timed(() => awake.exec("true", [])) },
      {
        what: "atoll, without a pool",
        async round() {
          await using after = new AsyncDisposableStack();
          const sandbox = box();
          after.defer(async () => void (await sandbox.destroy()));
          return await timed(() => sandbox.exec("true", []));
        },
      },
    ];
    return await interleave([...contestants, ...(await firstStarts(peers))], 60);
  },
};
