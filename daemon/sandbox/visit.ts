import type { Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { SandboxError } from "../../protocol/errors.ts";
import { dial } from "../link/dial.ts";
import { connectInNetns } from "../linux/netns-connect.ts";
import type { Run } from "./run.ts";

/** A server that is started at a wake listens within seconds; later whoever does not listen is not about to. */
const settleMs = 30_000;

/**
 * A connection to a port of the run, which ends with it. Whatever may be about to listen is waited for as long as the signal
 * allows: what was just started, and just after the run began its services and what an app starts then. Throws SERVICE_NOT_RESPONDING with what is listening, else what the link or the
 * signal says. With `onRead` what is read may be given to that instead of "data"; the chunk is valid until it returns.
 */
export async function connectToPort(
  run: Run,
  port: number,
  signal: AbortSignal,
  onRead?: (chunk: Buffer) => void,
): Promise<Socket> {
  for (let waitMs = 10; ; waitMs = Math.min(waitMs * 1.5, 250)) {
    signal.throwIfAborted();
    const near = connectToLoopback(run, port, onRead);
    if (near) return near;
    try {
      return await dial(run.link, port, signal);
    } catch (error) {
      if (!SandboxError.is(error, "SERVICE_NOT_RESPONDING") || !mayListenSoon(run, error)) throw error;
    }
    await pause(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted()); // its own words are not the reason
  }
}

/**
 * Straight to the loopback, where almost every server listens: each byte through the agent would cost two processes more.
 * The agent knows the rest, and the words for what is not there. Under a runtime that has a loopback of its own nobody
 * listens on this one.
 */
function connectToLoopback(run: Run, port: number, onRead?: (chunk: Buffer) => void): Socket | undefined {
  // once the run ends, its namespace may be another's
  if (run.stopping || !run.slot) return undefined;
  const { netnsPath } = run.slot;
  const socket = connectInNetns(netnsPath, "127.0.0.1", port, onRead) ?? connectInNetns(netnsPath, "::1", port, onRead);
  if (socket) run.keep(socket);
  return socket;
}

function mayListenSoon(run: Run, { details }: SandboxError): boolean {
  if (run.stopping) return false;
  if (details?.["starting"] === true) return true;
  return run.activity.ageMs < settleMs && (run.services.list().length > 0 || run.isFollowed);
}
