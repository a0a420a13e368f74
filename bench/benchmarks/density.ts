import { readdirSync, readFileSync } from "node:fs";
import { openCgroups } from "../../daemon/linux/cgroup.ts";
import { getSandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../../test/support/daemon.ts";
import { type Benchmark } from "../benchmark.ts";
import { cpuMs, pause, rss } from "../process.ts";

const count = 1_000;
const mebibyte = 2 ** 20;
/** The agents beat every two minutes and sweeps come every 15 s: at least one of each is in it. */
const watchMs = 120_000;

export const density: Benchmark = {
  name: "density",
  about: `${count} sandboxes that ran one command each and do nothing: what each costs, with its share of kernel, daemon and gateway`,
  async measure() {
    // one of its own: what other benchmarks left in a daemon's memory is not theirs
    await using daemon = await TestDaemon.start({ env: { ATOLL_LOG_LEVEL: "info" } });
    const connection = daemon.connect();
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => connection.close());
    await getSandbox(connection, "first").exec("true", []); // what is loaded once is there
    const before = read(daemon);
    for (let at = 0; at < count; at += 10) {
      const names = Array.from({ length: 10 }, (_, index) => `n${at + index}`);
      await Promise.all(names.map((name) => getSandbox(connection, name).exec("true", [])));
    }
    await pause(10_000); // requests' connections close, the collector has been by
    const after = read(daemon);
    const cpuBefore = cpuMs(daemon.pid);
    const began = performance.now();
    await pause(watchMs);
    const cpuPercent = (100 * (cpuMs(daemon.pid) - cpuBefore)) / (performance.now() - began);

    const perSandbox = (bytes: (reading: Reading) => number) => (bytes(after) - bytes(before)) / count / mebibyte;
    const parts = {
      cgroup: perSandbox((it) => it.groups),
      daemon: perSandbox((it) => it.daemon),
      gateway: perSandbox((it) => it.gateway),
    };
    const kernel = perSandbox((it) => it.kernel);
    return [
      {
        what: "each, all told",
        unit: "MiB",
        samples: [parts.cgroup + kernel + parts.daemon + parts.gateway],
        budget: "memory of an idle sandbox",
      },
      { what: "  its control group", unit: "MiB", samples: [parts.cgroup] },
      { what: "  kernel beside it (slab, stacks, page tables, per-cpu)", unit: "MiB", samples: [kernel] },
      { what: "  daemon's growth", unit: "MiB", samples: [parts.daemon] },
      { what: "  gateway's growth", unit: "MiB", samples: [parts.gateway] },
      { what: "check: the machine's memory that went, each", unit: "MiB", samples: [perSandbox((it) => it.machine)] },
      {
        what: "daemon RSS",
        unit: "MiB",
        samples: [after.daemon / mebibyte],
        group: "daemon",
        budget: "daemon RSS with 1,000 idle",
      },
      {
        what: "daemon CPU, of one core",
        unit: "%",
        samples: [cpuPercent],
        group: "daemon",
        budget: "daemon CPU with 1,000 idle",
      },
    ];
  },
};

/** Bytes in use, by who holds them. */
type Reading = { groups: number; kernel: number; daemon: number; gateway: number; machine: number };

function read(daemon: TestDaemon): Reading {
  const tag = /"tag":"(\w+)"/.exec(daemon.log())?.[1] ?? "";
  const cgroups = openCgroups();
  const groups = cgroups.list(`atoll-${tag}`).map((run) => cgroups.memoryBytes(`atoll-${tag}/${run}`) ?? 0);
  const memory = Object.fromEntries(
    [...readFileSync("/proc/meminfo", "utf8").matchAll(/^(\w+):\s+(\d+) kB$/gm)].map(([, name, kb]) => [
      name,
      Number(kb) * 1024,
    ]),
  );
  const of = (name: string) => memory[name] ?? 0;
  return {
    groups: groups.reduce((sum, bytes) => sum + bytes, 0),
    kernel: of("SUnreclaim") + of("KernelStack") + of("PageTables") + of("Percpu") - kernelOfGroups(tag),
    daemon: rss(daemon.pid),
    gateway: childrenOf(daemon.pid).reduce((sum, pid) => sum + rss(pid), 0),
    machine: of("MemTotal") - of("MemFree") - of("Buffers") - of("Cached") - of("SReclaimable"),
  };
}

/** Kernel memory that the groups' own figures hold already; version 1 counts it apart. */
function kernelOfGroups(tag: string): number {
  const cgroups = "/sys/fs/cgroup";
  let sum = 0;
  try {
    for (const run of readdirSync(`${cgroups}/memory/atoll-${tag}`, { withFileTypes: true })) {
      if (run.isDirectory())
        sum += Number(readFileSync(`${run.parentPath}/${run.name}/memory.kmem.usage_in_bytes`, "utf8"));
    }
  } catch {
    for (const run of readdirSync(`${cgroups}/atoll-${tag}`, { withFileTypes: true })) {
      const stat = run.isDirectory() ? readFileSync(`${run.parentPath}/${run.name}/memory.stat`, "utf8") : "";
      sum += Number(/^kernel (\d+)$/m.exec(stat)?.[1] ?? 0);
    }
  }
  return sum;
}

function childrenOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  return children
    .split(" ")
    .filter((word) => word !== "")
    .map(Number);
}
