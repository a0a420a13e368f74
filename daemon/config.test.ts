import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { configFrom } from "./config.ts";

test("without settings it is the machine's default daemon", () => {
  const config = configFrom({}, {});
  assert.equal(config.dataDir, "/var/lib/atoll/data");
  assert.equal(config.connectionFile, "/run/atoll/connection.json");
  assert.deepEqual(config.listen, { host: "127.0.0.1", port: 7465 });
  assert.equal(config.sleepAfterMs, 600_000);
  assert.equal(config.warmPool, 4);
  assert.match(config.tag, /^[0-9a-f]{6}$/);
  assert.equal(config.runDir, `/run/atoll/${config.tag}`);
});

test("another data directory is another daemon: tag, connection file, run directory", () => {
  const [one, two] = [configFrom({ dataDir: "/tmp/a" }, {}), configFrom({ dataDir: "/tmp/b" }, {})];
  assert.notEqual(one.tag, two.tag);
  assert.equal(one.connectionFile, "/tmp/a/connection.json");
});

test("a flag wins over the environment, that over atoll.json", async (context) => {
  const dataDir = await mkdtemp(join(tmpdir(), "atoll-config-"));
  context.after(() => rm(dataDir, { recursive: true }));
  const hosts = { "git.internal": "10.0.0.5" };
  await writeFile(join(dataDir, "atoll.json"), JSON.stringify({ listen: "127.0.0.1:1", sleepAfter: "1h", hosts }));
  assert.deepEqual(configFrom({ dataDir }, {}).hosts, hosts);
  assert.equal(configFrom({ dataDir }, { ATOLL_LISTEN: "127.0.0.1:2" }).listen.port, 2);
  assert.equal(configFrom({ dataDir, listen: "127.0.0.1:3" }, { ATOLL_LISTEN: "127.0.0.1:2" }).listen.port, 3);
  assert.equal(configFrom({ dataDir }, { ATOLL_SLEEP_AFTER: "30" }).sleepAfterMs, 30_000);
  await writeFile(join(dataDir, "atoll.json"), '{"lisen": "x"}');
  assert.throws(() => configFrom({ dataDir }, {}), { code: "VALIDATION_FAILED" });
});

test("a wrong setting is refused with its name and what it should be", () => {
  for (const [flags, name] of [
    [{ listen: "80" }, "--listen"],
    [{ listen: "example.com:80" }, "--listen"],
    [{ listen: "127.0.0.1:99999" }, "--listen"],
    [{ hosts: "nodot=10.0.0.1" }, "--hosts"],
    [{ hosts: "git.internal=nowhere" }, "--hosts"],
    [{ uidBase: "0" }, "--uid-base"],
    [{ uidBase: "4294967295" }, "--uid-base"],
    [{ sleepAfter: "soon" }, "--sleep-after"],
    [{ warmPool: "some" }, "--warm-pool"],
    [{ warmPool: "-1" }, "--warm-pool"],
    [{ warmPool: "257" }, "--warm-pool"],
    [{ logLevel: "loud" }, "--log-level"],
    [{ token: "short" }, "ATOLL_TOKEN"],
    [{ token: "with spaces and more" }, "ATOLL_TOKEN"],
    [{ tokenFile: "/nowhere/token" }, "--token-file"],
  ] as const) {
    assert.throws(
      () => configFrom(flags, {}),
      (error: Error & { code: string }) => error.code === "VALIDATION_FAILED" && error.message.includes(name),
    );
  }
});
