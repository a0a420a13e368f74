import { existsSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { SandboxError } from "../protocol/errors.ts";
import type { Connection } from "../sdk/connection.ts";
import { configOf, connectionOf, findDaemon, isElsewhere } from "./daemon.ts";
import { startDetached } from "./detach.ts";
import { print, printJson } from "./output.ts";
import type { Run } from "./table.ts";

/** How often an ending daemon is looked at: it ends within a second, and longer with many sandboxes. */
const lookEveryMs = 50;

export const run: Run<"down"> = async ({ values }) => {
  const purge = values.purge === true;
  const ended = isElsewhere(values) ? await endElsewhere(connectionOf(values), purge) : await endHere();
  if (values.json) printJson({ ended, purged: ended && purge });
  else if (!ended) print("No daemon is up, and none has left anything behind.");
  else
    print(
      `The daemon has ended. ${purge ? "Every sandbox is removed." : "Every sandbox sleeps, and its disk is kept."}`,
    );
  return 0;

  async function endHere(): Promise<boolean> {
    const config = configOf(values);
    let daemon = await findDaemon(config);
    if (!daemon) {
      // A daemon that was killed has left its sandboxes running; one that went down has removed its directory.
      const leftBehind = existsSync(config.runDir) || (purge && existsSync(config.dataDir));
      if (!leftBehind) return false;
      daemon = await startDetached(config, values);
    }
    await connectionOf(values).transport.json("down", { params: {}, body: { purge } });
    while (isAlive(daemon.health.pid)) await pause(lookEveryMs);
    return true;
  }
};

async function endElsewhere(connection: Connection, purge: boolean): Promise<boolean> {
  await connection.transport.json("down", { params: {}, body: { purge } });
  for (;;) {
    try {
      await connection.transport.json("health", { params: {} });
    } catch (error) {
      if (SandboxError.is(error, "SANDBOX_UNAVAILABLE")) return true;
      throw error;
    }
    await pause(lookEveryMs);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // nobody has this number: the only error that root gets
  }
}
