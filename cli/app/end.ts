import type { Server } from "node:http";
import { constants } from "node:os";
import type { Work } from "./work.ts";

/** Requests and waitUntil may take so long when the app is to end. */
const patienceMs = 10_000;

export type EndSignal = "SIGINT" | "SIGTERM";

export type Ending = {
  server: Server;
  work: Work;
  ending: AbortController;
  /** Calls back whenever the app is asked to end. */
  onSignal(callback: (signal: EndSignal) => void): void;
};

/**
 * Waits until the app is asked to end. Then nothing new is accepted, WebSockets are closed, and requests under way are waited
 * for. Gives the exit code: 0 when all of it was finished, else the signal's. A second signal ends the waiting.
 */
export function end({ server, work, ending, onSignal }: Ending): Promise<number> {
  return new Promise((resolve) => {
    onSignal((signal) => {
      const cutOff = () => resolve(128 + constants.signals[signal]);
      if (ending.signal.aborted) return cutOff();
      ending.abort();
      server.close();
      setTimeout(cutOff, patienceMs);
      void work.done().then(() => resolve(0));
    });
  });
}

export function onOwnSignal(callback: (signal: EndSignal) => void): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, callback);
}
