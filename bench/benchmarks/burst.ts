import { type Connection, getSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../../test/support/daemon.ts";
import { untilWarm } from "../../test/support/warm-pool.ts";
import { type Benchmark, type Row, timed } from "../benchmark.ts";
import type { BudgetName } from "../budgets.ts";

const size = 100;
const rounds = 3;

export const burst: Benchmark = {
  name: "burst",
  about: `${size} new names at once, to the result of the last one's first command; none may fail`,
  async measure({ box, peers: { docker } }) {
    const rows = await rowsOf("atoll", "burst of 100", () => Promise.resolve(), box);
    for (const pool of [4, size]) rows.push(...(await withPool(pool)));
    if (docker) {
      await docker.ready();
      const run = ["run", "--rm", "--network", "none", "base", "/bin/true"];
      const all = () => Promise.all(Array.from({ length: size }, () => docker.docker(...run)));
      rows.push({ what: "docker run, all ended", unit: "ms", samples: [await timed(all)] });
    }
    return rows;
  },
};

/** The same on a daemon of its own, whose pool is full when each burst comes. */
async function withPool(pool: number): Promise<Row[]> {
  await using daemon = await TestDaemon.start({
    env: { ATOLL_LOG_LEVEL: "info", ATOLL_WARM_POOL: String(pool) },
  });
  await using cleanup = new AsyncDisposableStack();
  const connection: Connection = cleanup.adopt(daemon.connect(), (it) => it.close());
  let names = 0;
  const box = () => getSandbox(connection, `b${++names}`);
  const ready = () => untilWarm(daemon.dataDir, pool);
  return await rowsOf(`atoll with a pool of ${pool}`, "burst of 100 with the pool", ready, box);
}

async function rowsOf(
  who: string,
  budget: BudgetName,
  ready: () => Promise<unknown>,
  box: () => Sandbox,
): Promise<Row[]> {
  const all: number[] = [];
  const each: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await ready();
    const boxes = Array.from({ length: size }, box);
    try {
      const times = await Promise.all(boxes.map((sandbox) => timed(() => sandbox.exec("true", []))));
      all.push(Math.max(...times));
      each.push(...times);
    } finally {
      await Promise.all(boxes.map((sandbox) => sandbox.destroy()));
    }
  }
  return [
    { what: `${who}, all answered`, unit: "ms", samples: all, budget },
    { what: `${who}, each`, unit: "ms", samples: each },
  ];
}
