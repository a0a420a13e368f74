import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../daemon/linux/run.ts";
import { type Benchmark, type Contestant, interleave, timed } from "../benchmark.ts";

const fixture = join(import.meta.dirname, "../fixtures/npm-ci");
const words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
const rounds = 5;

export const npmCi: Benchmark = {
  name: "npm",
  about:
    "`npm ci` of 150 packages by the image's npm, inside through the gateway against on the host; cold: npm's cache is empty, the registry's proxies are as they are; warm: the cache is full; node_modules is never there before",
  async measure({ box, rootDir }) {
    await using cleanup = new AsyncDisposableStack();
    const dir = await mkdtemp(join(tmpdir(), "atoll-bench-npm-"));
    cleanup.defer(() => rm(dir, { recursive: true, force: true }));
    await cp(fixture, join(dir, "project"), { recursive: true });
    // as much of the processors as the host's npm may use
    const sandbox = box("npm-ci");
    cleanup.defer(async () => void (await sandbox.destroy()));
    for (const name of ["package.json", "package-lock.json"])
      await sandbox.writeFile(`/workspace/project/${name}`, await readFile(join(fixture, name)));

    const inside = async (cold: boolean) => {
      await sandbox.exec(`rm -rf node_modules ${cold ? "~/.npm" : ""}`, { cwd: "/workspace/project" });
      return timed(async () => {
        const { exitCode, stderr } = await sandbox.exec("npm", words, { cwd: "/workspace/project" });
        if (exitCode !== 0) throw new Error(`Cannot run npm ci inside: ${stderr}`);
      });
    };
    const npm = join(rootDir, "usr/local/lib/node_modules/npm/bin/npm-cli.js");
    const env = { ...(process.env as Record<string, string>), HOME: homedir(), npm_config_cache: join(dir, "cache") };
    const outside = async (cold: boolean) => {
      await rm(join(dir, "project/node_modules"), { recursive: true, force: true });
      if (cold) await rm(join(dir, "cache"), { recursive: true, force: true });
      return timed(() => run(process.execPath, [npm, ...words], { cwd: join(dir, "project"), env }));
    };
    const contestants = (cold: boolean): Contestant[] => [
      { what: `inside, ${cold ? "cold" : "warm"}`, group: `${cold}`, round: () => inside(cold) },
      { what: `on the host, ${cold ? "cold" : "warm"}`, group: `${cold}`, round: () => outside(cold) },
    ];
    const cold = await interleave(contestants(true), rounds);
    const warm = await interleave(contestants(false), rounds);
    const ratio = ([ours, theirs]: typeof cold) => ours!.samples.map((ms, round) => ms / theirs!.samples[round]!);
    return [
      ...cold,
      ...warm,
      {
        what: "inside / host, cold",
        unit: "x",
        samples: ratio(cold),
        budget: "npm ci against the host",
        group: "ratio",
      },
      {
        what: "inside / host, warm",
        unit: "x",
        samples: ratio(warm),
        budget: "npm ci against the host",
        group: "ratio of warm",
      },
    ];
  },
};
