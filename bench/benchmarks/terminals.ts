import { getSandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../../test/support/daemon.ts";
import type { Benchmark } from "../benchmark.ts";
import { cpuMs, pause, rss } from "../process.ts";

const boxes = 50;
const perBox = 20;
/** Viewers are asked whether they are there every 30 s, logs beat every 15 s: several of each are in it. */
const watchMs = 60_000;

export const terminals: Benchmark = {
  name: "terminals",
  about: `${boxes * perBox} open terminals in ${boxes} sandboxes, a shell at its prompt and a viewer each, in which nothing happens`,
  async measure() {
    await using daemon = await TestDaemon.start({ env: { ATOLL_LOG_LEVEL: "info" } });
    const connection = daemon.connect();
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => connection.close());
    const sandboxes = Array.from({ length: boxes }, (_, at) => getSandbox(connection, `n${at}`, { keepAlive: true }));
    for (const sandbox of sandboxes) {
      const warm = await sandbox.createTerminal();
      await warm.close();
      await warm.exited;
    }
    await pause(10_000);
    const before = rss(daemon.pid);
    const open: { detach(): void }[] = [];
    cleanup.defer(() => open.forEach((terminal) => terminal.detach()));
    for (const sandbox of sandboxes) {
      const made = await Promise.all(Array.from({ length: perBox }, () => sandbox.createTerminal()));
      open.push(...made);
      await Promise.all(made.map(async ({ output }) => void (await output[Symbol.asyncIterator]().next()))); // its prompt
    }
    await pause(10_000);
    const growth = rss(daemon.pid) - before;
    const cpuBefore = cpuMs(daemon.pid);
    const began = performance.now();
    await pause(watchMs);
    const cpuPercent = (100 * (cpuMs(daemon.pid) - cpuBefore)) / (performance.now() - began);
    return [
      {
        what: "daemon's growth",
        unit: "MiB",
        samples: [growth / 2 ** 20],
        budget: "daemon growth with 1,000 terminals",
      },
      {
        what: "daemon CPU, of one core",
        unit: "%",
        samples: [cpuPercent],
        group: "CPU",
        budget: "daemon CPU with 1,000 terminals",
      },
    ];
  },
};
