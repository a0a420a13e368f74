import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import { deleteSubvolume } from "../../daemon/linux/btrfs.ts";
import { identify, stateOf } from "../../daemon/linux/process.ts";
import { run } from "../../daemon/linux/run.ts";
import { type Connection, getSandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { until } from "../support/until.ts";
import { runRowOf, runRows, untilWarm, warmRows } from "../support/warm-pool.ts";

/** What may go wrong, or come between, when a sandbox claims a run that waited. */

const size = 2;
const env: Record<string, string> = { ATOLL_WARM_POOL: String(size) };
let own: string;
let daemon: TestDaemon;
let connection: Connection;

before(async () => {
  own = await mkdtemp("/var/tmp/atoll-warm-");
  env["NODE_EXTRA_CA_CERTS"] = join(own, "ca.pem"); // not there yet
  daemon = await TestDaemon.start({ env, hosts: { "web.test": "127.0.0.1" } });
  connection = daemon.connect();
});

after(async () => {
  await daemon[Symbol.asyncDispose]();
  await rm(own, { recursive: true });
});

/** Ends the daemon in the middle of whatever it does, and starts it with these settings instead. */
async function restartWith(settings: Record<string, string> = {}): Promise<void> {
  await daemon.kill("SIGKILL");
  const former = { ...env };
  Object.assign(env, settings);
  await daemon.up();
  for (const name of Object.keys(settings)) delete env[name];
  Object.assign(env, former);
}

test("whoever stops, configures or destroys it at the moment of the claim finds one sandbox, whole", async () => {
  for (let round = 0; round < 6; round++) {
    await untilWarm(daemon.dataDir, size);
    const box = getSandbox(connection, `met-${round}`, { instance: "lite" });
    const same = getSandbox(connection, box.id, { instance: "lite" });
    const meeting = [
      () => same.stop(),
      () => same.setLabels({ round: String(round) }),
      () => same.setEnvVars({ COLOUR: "blue" }),
    ];
    await Promise.all([box.start(), ...meeting.slice(round % 3).map((meet) => meet())]);
    const { stdout } = await box.exec("hostname; ulimit -u; cat /etc/hostname");
    assert.equal(stdout, `${box.id}\n448\n${box.id}\n`);
    const { labels } = await box.info();
    assert.deepEqual(labels, round % 3 < 2 ? { round: String(round) } : {});
    await Promise.all([box.exec("true").catch(() => {}), box.destroy()]);
    await box.destroy();
  }
  assert.ok(runRows(daemon.dataDir).every(({ warm }) => warm !== null));
});

test("what hangs on the sandbox is there after its sleep and for the next daemon", async () => {
  await untilWarm(daemon.dataDir, size);
  const box = getSandbox(connection, "much", { labels: { a: "1" }, envVars: { COLOUR: "blue" } });
  const service = await box.startProcess("sleep 1000", { restart: "wake" });
  assert.ok(runRowOf(daemon.dataDir, box.id)!.waited_ms > 0);
  const { url } = await box.exposePort(8000);
  const session = await box.createSession({ id: "work" });
  await session.exec("cd /tmp && export SHAPE=round");
  const look = async () => ({
    address: (await box.exec("getent hosts web.test")).stdout,
    session: (await session.exec("pwd; echo $SHAPE $COLOUR")).stdout,
    urls: (await box.getExposedPorts()).map((port) => port.url),
    labels: (await box.info()).labels,
    services: (await box.listProcesses()).filter(({ status }) => status === "running").map(({ id }) => id),
  });
  const first = await look();
  assert.deepEqual(
    { ...first, address: "" },
    { address: "", session: "/tmp\nround blue\n", urls: [url], labels: { a: "1" }, services: [service.id] },
  );
  assert.match(first.address, /^198\.19\./);
  await restartWith();
  assert.deepEqual(await look(), first);
  await box.stop();
  await box.start();
  assert.deepEqual(await look(), first);
  await box.destroy();
});

test("a claim that cannot be recorded changes nothing: the sandbox is started as any other", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  const state = () => new DatabaseSync(join(daemon.dataDir, "state.db"), { timeout: 5_000 });
  {
    using db = state();
    db.exec("CREATE TRIGGER refuse BEFORE UPDATE OF key ON sandboxes BEGIN SELECT RAISE(ABORT, 'refused'); END");
  }
  const box = getSandbox(connection, "unclaimed");
  assert.equal((await box.exec("hostname")).stdout, "unclaimed\n");
  assert.ok(waiting.every(({ id }) => id !== runRowOf(daemon.dataDir, box.id)?.id));
  {
    using db = state();
    db.exec("DROP TRIGGER refuse");
  }
  const next = getSandbox(connection, "claimed");
  await next.exec("true");
  assert.ok(waiting.some(({ id }) => id === runRowOf(daemon.dataDir, next.id)?.id));
  await Promise.all([box.destroy(), next.destroy()]);
});

test("one whose disk cannot be limited is given back, and the sandbox gets another", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  for (const { sandbox_key: key } of waiting) await deleteSubvolume(join(daemon.dataDir, "pool/disks", key));
  const box = getSandbox(connection, "limited", { instance: { vcpu: 1, memoryMiB: 256, diskMB: 64 } });
  assert.match((await box.exec("head -c 150M /dev/urandom > fill")).stderr, /No space left|quota exceeded/i);
  const { id } = runRowOf(daemon.dataDir, box.id)!;
  assert.ok(waiting.every((row) => row.id !== id));
  await box.destroy();
  for (const { pid } of warmRows(daemon.dataDir)) process.kill(pid, "SIGKILL"); // the other one lives without a disk
  const gone = waiting.map((row) => row.id);
  await until("both are gone", () => runRows(daemon.dataDir).every((row) => !gone.includes(row.id)));
});

test("when the certificates of the host change, runs that trust the new ones take their place", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  const key = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", join(own, "key")];
  await run("openssl", ["req", ...key, "-subj", "/CN=a company", "-out", join(own, "ca.pem")]);
  await until("all are replaced", () => {
    const rows = warmRows(daemon.dataDir);
    return rows.length === size && rows.every(({ id }) => waiting.every((row) => row.id !== id));
  });
  const box = getSandbox(connection, "trusts");
  const line = (await readFile(join(own, "ca.pem"), "utf8")).split("\n")[3]!;
  assert.equal((await box.exec(`grep -c '${line}' /run/atoll/ca.pem`)).stdout, "1\n");
  assert.ok(runRowOf(daemon.dataDir, box.id)!.waited_ms > 0);
  await box.destroy();
});

for (const [what, settings] of Object.entries({
  "under another runtime": { ATOLL_RUNTIME: "/usr/sbin/runc" },
  "of a smaller pool": { ATOLL_WARM_POOL: "1" },
  // its images cannot be used then, so nothing can be made
  "whose sandboxes have other users": { ATOLL_UID_BASE: "1800000000" },
})) {
  test(`the next daemon, ${what}, starts and ends what it has no use for`, async () => {
    const waiting = await untilWarm(daemon.dataDir, size);
    const processes = waiting.map(({ pid }) => identify(pid)!);
    await restartWith(settings);
    const kept = settings.ATOLL_WARM_POOL === "1" ? 1 : 0;
    await until("the others are gone", () => processes.filter((it) => stateOf(it) === "alive").length === kept);
    await until("their rows too", () => {
      const rows = runRows(daemon.dataDir);
      return waiting.filter(({ id }) => rows.some((row) => row.id === id)).length === kept;
    });
    await restartWith();
  });
}

test("the next daemon does not wait for those that do not answer", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  for (const { pid } of waiting) process.kill(pid, "SIGSTOP");
  await restartWith();
  assert.ok(runRows(daemon.dataDir).every(({ id }) => waiting.every((row) => row.id !== id)));
  assert.match(daemon.log(), /no answer in 1000 ms/);
  await untilWarm(daemon.dataDir, size);
});
