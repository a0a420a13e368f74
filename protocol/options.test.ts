import assert from "node:assert/strict";
import { test } from "node:test";
import {
  Duration,
  EnvVars,
  instanceOf,
  type InstanceType,
  instanceTypes,
  Labels,
  parseDurationMs,
  pidsLimitOf,
  SandboxConfig,
} from "./options.ts";

for (const [duration, ms] of [
  ["30s", 30_000],
  ["5m", 300_000],
  ["1h", 3_600_000],
  ["1.5h", 5_400_000],
  [" 5m ", 300_000],
  [30, 30_000],
  [0, 0],
  [0.5, 500],
] as const) {
  test(`${JSON.stringify(duration)} is ${ms} ms`, () => {
    assert.equal(parseDurationMs(duration), ms);
    assert(Duration.safeParse(duration).success);
  });
}

for (const duration of [
  "",
  "5",
  "5d",
  "m",
  "-5m",
  "5 m",
  "1e3s",
  "5m5s",
  -1,
  Number.NaN,
  Infinity,
  "9999h",
  2_592_001,
]) {
  test(`${JSON.stringify(duration)} (${String(duration)}) is no duration`, () => {
    assert(!Duration.safeParse(duration).success);
  });
}

const kept = (count: number) => Array.from({ length: count }, (_, index) => `/data${"/in".repeat(index)}`);

const config: [string, unknown, boolean][] = [
  ["nothing", {}, true],
  [
    "everything",
    {
      image: "base",
      instance: "lite",
      cpuBurst: false,
      isolation: "gvisor",
      persistAcrossSessions: { type: "directory", paths: ["/workspace"] },
      sleepAfter: "10m",
      keepAlive: true,
      maxLifetime: 3_600,
      labels: { team: "data" },
      envVars: { A: "1", B: null },
    },
    true,
  ],
  ["numbers of an instance", { instance: { vcpu: 0.5, memoryMiB: 512, diskMB: 1_000 } }, true],
  ["an unknown option", { sleepafter: "5m" }, false],
  ["an unknown instance", { instance: "giant" }, false],
  ["half an instance", { instance: { vcpu: 1 } }, false],
  ["negative memory", { instance: { vcpu: 1, memoryMiB: -1, diskMB: 1_000 } }, false],
  ["memory that is no whole number", { instance: { vcpu: 1, memoryMiB: 64.5, diskMB: 1_000 } }, false],
  ["no CPU", { instance: { vcpu: 0, memoryMiB: 64, diskMB: 1_000 } }, false],
  ["an isolation that is none", { isolation: "vm" }, false],
  ["a directory without paths", { persistAcrossSessions: { type: "directory", paths: [] } }, false],
  ["64 kept paths, one in another", { persistAcrossSessions: { type: "directory", paths: kept(64) } }, true],
  ["65 kept paths", { persistAcrossSessions: { type: "directory", paths: kept(65) } }, false],
  ["a type of persistence that is none", { persistAcrossSessions: { type: "tape" } }, false],
  ["an image without a name", { image: "" }, false],
  ["a label that is no text", { labels: { a: 1 } }, false],
];
for (const [what, value, good] of config) {
  test(`${what} is ${good ? "a" : "no"} configuration`, () => {
    assert.equal(SandboxConfig.safeParse(value).success, good);
  });
}

const keptPaths: [string, RegExp | undefined][] = [
  ["/workspace", undefined],
  ["/a b/\n/ä/...", undefined],
  [`/${"n".repeat(255)}/x`, undefined],
  ["/", /"disk"/],
  ["workspace", /absolute/],
  ["", /absolute/],
  ["/data/", /slash at its end/],
  ["/data//x", /empty part/],
  ["/data/./x", /no "\."/],
  ["/data/..", /no "\.\."/],
  ["/data/../../etc", /no "\.\."/],
  ["/da\0ta", /NUL/],
  ["/\ud800", /text/],
  [`/${"ä".repeat(128)}`, /255/],
  [`/${"n/".repeat(2_048)}n`, /4096/],
];
for (const [path, why] of keptPaths) {
  test(`${JSON.stringify(path.slice(0, 30))} is ${why ? "no" : "a"} path to keep`, () => {
    const given = SandboxConfig.safeParse({ persistAcrossSessions: { type: "directory", paths: [path] } });
    if (why) assert.match(given.error?.issues[0]?.message ?? "", why);
    else assert.ok(given.success);
  });
}

test("environment variables are names without = and NUL, and text without NUL", () => {
  assert(EnvVars.safeParse({ A: "", "a.b": "x\ny", ä: null }).success);
  for (const bad of [{ "": "x" }, { "A=B": "x" }, { "A\0": "x" }, { A: "\0" }, { A: 1 }]) {
    assert(!EnvVars.safeParse(bad).success, JSON.stringify(bad));
  }
});

test("labels have names of 1 to 63 and values of at most 256 characters", () => {
  assert(Labels.safeParse({ ["n".repeat(63)]: "v".repeat(256) }).success);
  for (const bad of [{ "": "x" }, { ["n".repeat(64)]: "x" }, { a: "v".repeat(257) }]) {
    assert(!Labels.safeParse(bad).success);
  }
});

test("each larger instance type gives at least as much of everything", () => {
  const types = Object.values(instanceTypes);
  for (let index = 1; index < types.length; index++) {
    const [small, large] = [types[index - 1], types[index]];
    assert(
      small && large && small.vcpu <= large.vcpu && small.memoryMiB < large.memoryMiB && small.diskMB < large.diskMB,
    );
  }
});

test("the numbers follow the instance", () => {
  assert.deepEqual(instanceOf("basic"), { vcpu: 1 / 4, memoryMiB: 1_024, diskMB: 4_000 });
});

test("lite has 512 processes, basic 1,024, every other instance 4,096", () => {
  const types = Object.keys(instanceTypes) as InstanceType[];
  assert.deepEqual(types.map(pidsLimitOf), [512, 1_024, 4_096, 4_096, 4_096, 4_096]);
  for (const memoryMiB of [64, 256, 1_024, 12_288])
    assert.equal(pidsLimitOf({ vcpu: 1, memoryMiB, diskMB: 1_000 }), 4_096, `${memoryMiB} MiB`);
});
