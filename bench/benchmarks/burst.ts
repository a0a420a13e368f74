import { type Benchmark, type Row, timed } from "../benchmark.ts";

const size = 100;
const rounds = 3;

export const burst: Benchmark = {
  name: "burst",
  about: `${size} new names at once, to the result of the last one's first command; none may fail`,
  async measure({ box, peers: { docker } }) {
    const all: number[] = [];
    const each: number[] = [];
    const dockers: number[] = [];
    if (docker) await docker.ready();
    for (let round = 0; round < rounds; round++) {
      const boxes = Array.from({ length: size }, () => box());
      try {
        const times = await Promise.all(boxes.map((sandbox) => timed(() => sandbox.exec("true", []))));
        all.push(Math.max(...times));
        each.push(...times);
      } finally {
        await Promise.all(boxes.map((sandbox) => sandbox.destroy()));
      }
      if (docker && round === 0) {
        const run = ["run", "--rm", "--network", "none", "base", "/bin/true"];
        dockers.push(await timed(() => Promise.all(boxes.map(() => docker.docker(...run)))));
      }
    }
    const rows: Row[] = [
      { what: "atoll, all answered", unit: "ms", samples: all, budget: "burst of 100" },
      { what: "atoll, each", unit: "ms", samples: each },
    ];
    if (docker) rows.push({ what: "docker run, all ended", unit: "ms", samples: dockers });
    return rows;
  },
};
