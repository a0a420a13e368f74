import type { Server } from "node:http";
import { constants } from "node:os";
import type { Work } from "./work.ts";

/** Requests and waitUntil may take so long when the app is to end. */
const patienceMs = 10_000;

export type Ending = { server: Server; work: Work; ending: AbortController };

/**
 * Waits for SIGINT or SIGTERM. Then nothing new is accepted, WebSockets are closed, and requests under way are waited for.
 * Gives the exit code: 0 when all of it was finished, else the signal's. A second signal ends the waiting.
 */
export function endBySignal({ server, work, ending }: Ending): Promise<number> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.on(signal, () => {
        const cutOff = () => resolve(128 + constants.signals[signal]);
        if (ending.signal.aborted) return cutOff();
        ending.abort();
        server.close();
        setTimeout(cutOff, patienceMs);
        void work.done().then(() => resolve(0));
      });
    }
  });
}
