import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, chmod } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "../../daemon/linux/run.ts";
import { getSandbox, type Connection } from "../../sdk/index.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { until } from "../support/until.ts";
import { assertHostIsAsRecorded } from "./support/records.ts";
import { spread } from "./support/spread.ts";
import { SteppedDaemon } from "./support/stepped-daemon.ts";

test("kill -9 of the daemon at any step of an image build: the store has the image whole or not at all, and nothing else", async () => {
  const storeDir = await mkdtemp("/var/tmp/atoll-crash-store-");
  await chmod(storeDir, 0o711);
  try {
    const daemon = await SteppedDaemon.start({ ATOLL_STORE_DIR: storeDir });
    const host = { ...(await snapshotHost(daemon.dataDir)), things: new Map<string, string>() };
    const connection = daemon.connect();
    try {
      const steps = await daemon.stepsOf(() => build(connection));
      for (const step of spread([...new Set(steps.map((name) => name.replace(/ \(\d+\)$/, "")))], 3)) {
        await run("rm", ["-f", join(storeDir, "names/test")]);
        await daemon.order({ tell: false, killAt: step });
        // A connection of its own, closed before the next life: or the SDK would ask that one to build again.
        const caller = daemon.connect();
        const built = build(caller).catch(() => {}); // its answer is lost with the daemon
        await Promise.race([daemon.ended, built]);
        await daemon.kill();
        caller.close();
        await built;
        await until("the builder's programs have ended", () => programsOf(storeDir).length === 0);
        await daemon.up();
        assert.deepEqual(readdirSync(join(storeDir, "building")), [], step);
        for (const { digest } of await connection.listImages()) assert.match(digest, /^sha256:[0-9a-f]{64}$/);
        await assertHostIsAsRecorded(daemon);
      }
      await build(connection);
      const box = getSandbox(connection, "on-it", { image: "test" });
      assert.equal((await box.exec("echo whole")).stdout, "whole\n");
    } finally {
      connection.close();
      await daemon[Symbol.asyncDispose]();
    }
    await assertNothingLeaked(host);
  } finally {
    await run("rm", ["-rf", "--one-file-system", storeDir]);
  }
});

async function build(connection: Connection): Promise<void> {
  for await (const _ of connection.transport.events("buildImage", { params: { image: "test" } })); // to its end
}

/** Programs whose words name the store, without the daemon's gateway. */
function programsOf(storeDir: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => textOf(`/proc/${pid}/cmdline`))
    .filter((words) => words.includes(storeDir) && !words.includes("gateway.cjs"));
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // it has ended meanwhile
  }
}
