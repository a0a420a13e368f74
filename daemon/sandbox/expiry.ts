import type { Machines } from "./machines.ts";
import type { SandboxRecord } from "./record.ts";
import type { Run } from "./run.ts";

/**
 * How long a sandbox that is due to sleep waits for its class's onActivityExpired to use it. A callback begins within
 * milliseconds; the rest is for an app that is busy. One that hangs keeps nobody awake for longer.
 */
const graceMs = 5_000;

/** That followers were told, and what the run's last use was then. */
export type Expiry = { toldMs: number; lastUsedMs: number };

/**
 * For how many milliseconds more a run that is due to sleep is kept for its followers, who are told with the first call; 0 when
 * nobody follows its class, or they have not used it in time.
 */
export function graceLeftMs({ followers, journal }: Machines, { key, config }: SandboxRecord, run: Run): number {
  if (config.className === undefined || !followers.has(config.className)) return 0;
  const { lastUsedMs } = run.activity;
  if (run.expiry?.lastUsedMs !== lastUsedMs) {
    journal.write({ time: Date.now(), sandboxKey: key, run: run.number, type: "run.idle", data: {} });
    run.expiry = { toldMs: performance.now(), lastUsedMs };
  }
  return Math.max(0, run.expiry.toldMs + graceMs - performance.now());
}
