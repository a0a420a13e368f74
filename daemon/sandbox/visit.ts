import type { Duplex } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { SandboxError } from "../../protocol/errors.ts";
import { dial } from "../link/dial.ts";
import type { Run } from "./run.ts";

/** A server that is started at a wake listens within seconds; later whoever does not listen is not about to. */
const settleMs = 30_000;

/**
 * A connection to a port of the run. Just after the run began its services may not listen yet: they are waited for as long
 * as the signal allows. Throws SERVICE_NOT_RESPONDING with what is listening, else what the link or the signal says.
 */
export async function connectToPort(run: Run, port: number, signal: AbortSignal): Promise<Duplex> {
  for (let waitMs = 10; ; waitMs = Math.min(waitMs * 1.5, 250)) {
    try {
      return await dial(run.link, port, signal);
    } catch (error) {
      if (!SandboxError.is(error, "SERVICE_NOT_RESPONDING") || !mayListenSoon(run)) throw error;
    }
    await pause(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted()); // its own words are not the reason
  }
}

function mayListenSoon(run: Run): boolean {
  return !run.stopping && run.activity.ageMs < settleMs && run.services.list().length > 0;
}
