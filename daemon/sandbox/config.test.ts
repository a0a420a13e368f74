import assert from "node:assert/strict";
import { test } from "node:test";
import { changeConfig, changeSettings, keptPathsOf, limitsOf, newConfig, type StoredConfig } from "./config.ts";

const defaults = { sleepAfterMs: 600_000 };

test("a sandbox without options is basic, sleeps after the daemon's default and keeps its disk", () => {
  assert.deepEqual(newConfig({}, defaults), {
    instance: "basic",
    cpuBurst: true,
    isolation: "container",
    persist: "disk",
    sleepAfterMs: 600_000,
    keepAlive: false,
    maxLifetimeMs: null,
    labels: {},
    envVars: {},
  } satisfies StoredConfig);
});

test("times are given as text or seconds and kept in milliseconds", () => {
  const config = newConfig({ sleepAfter: "1h", maxLifetime: 90 }, defaults);
  assert.equal(config.sleepAfterMs, 3_600_000);
  assert.equal(config.maxLifetimeMs, 90_000);
});

test("what is not built yet is refused, never ignored", () => {
  for (const given of [{ persistAcrossSessions: { type: "memory" } }, { isolation: "gvisor" }] as const) {
    assert.throws(() => newConfig(given as never, defaults), { code: "NOT_SUPPORTED" });
  }
});

test("settings change, what the disk was made with does not", () => {
  const config = newConfig({ envVars: { A: "1", B: "2" }, labels: { team: "data" } }, defaults);
  const changed = changeConfig("box", config, "base", {
    keepAlive: true,
    envVars: { A: null, C: "3" },
    labels: { team: "web" },
  });
  assert.equal(changed.keepAlive, true);
  assert.deepEqual(changed.envVars, { B: "2", C: "3" });
  assert.deepEqual(changed.labels, { team: "web" });
  assert.doesNotThrow(() =>
    changeConfig("box", config, "base", { image: "base", persistAcrossSessions: { type: "disk" } }),
  );
  assert.throws(() => changeConfig("box", config, "base", { image: "python" }), { code: "VALIDATION_FAILED" });
  assert.throws(() => changeConfig("box", config, "base", { persistAcrossSessions: { type: "none" } }), {
    code: "VALIDATION_FAILED",
  });
});

test("which paths are kept can be changed, that some are cannot", () => {
  const keep = (...paths: string[]) => ({ persistAcrossSessions: { type: "directory", paths } }) as const;
  const config = newConfig(keep("/data"), defaults);
  assert.deepEqual(keptPathsOf(config), ["/data"]);
  assert.deepEqual(keptPathsOf(changeConfig("box", config, "base", {})), ["/data"]);
  assert.deepEqual(keptPathsOf(changeConfig("box", config, "base", keep("/data", "/etc"))), ["/data", "/etc"]);
  for (const type of ["disk", "none"] as const)
    assert.throws(() => changeConfig("box", config, "base", { persistAcrossSessions: { type } }), {
      code: "VALIDATION_FAILED",
      message: /from "directory" to/,
    });
  assert.throws(() => changeConfig("box", newConfig({}, defaults), "base", keep("/data")), {
    code: "VALIDATION_FAILED",
  });
});

test("settings that are not given stay", () => {
  const config = newConfig({ sleepAfter: "5m", keepAlive: true, labels: { a: "b" } }, defaults);
  assert.deepEqual(changeSettings(config, {}), config);
});

test("limits follow the instance", () => {
  const lite = limitsOf(newConfig({ instance: "lite" }, defaults));
  assert.deepEqual([lite.vcpu, lite.memoryMiB, lite.diskMB, lite.pids], [1 / 16, 256, 2_000, 512]);
  const own = limitsOf(newConfig({ instance: { vcpu: 3, memoryMiB: 3_000, diskMB: 500 }, cpuBurst: false }, defaults));
  assert.deepEqual([own.vcpu, own.memoryMiB, own.diskMB, own.pids, own.cpuBurst], [3, 3_000, 500, 4_096, false]);
});
