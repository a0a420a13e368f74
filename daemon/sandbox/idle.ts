import { isNotTaken } from "../state.ts";
import { giveMemoryBack } from "../linux/memory.ts";
import { watchSpace } from "../storage/space.ts";
import { graceLeftMs } from "./expiry.ts";
import type { Machines } from "./machines.ts";
import type { Sandboxes } from "./sandboxes.ts";

/** A look at 1,000 runs costs 5 to 20 ms: rarely by itself, but in time for the sandbox that is due next. */
const rarelyMs = 15_000;
const oftenMs = 250;

/** Whether a run's agent lives costs six times as much to see as the rest of a look, and its end is heard, as a rule. */
const deathsMs = 60_000;

/** Puts idle runs to sleep, ends those past their lifetime, finds dead ones whose end was not heard, and writes who was active. */
export async function watchIdle(machines: Machines, sandboxes: Sandboxes, signal: AbortSignal): Promise<void> {
  let waitMs = oftenMs;
  let deathsDueMs = 0;
  while (!signal.aborted) {
    await pause(waitMs, signal);
    if (waitMs === rarelyMs) giveMemoryBack();
    waitMs = rarelyMs;
    const now = Date.now();
    const looksForDeaths = performance.now() >= deathsDueMs;
    if (looksForDeaths) deathsDueMs = performance.now() + deathsMs;
    for (const { run, idleMs } of sandboxes.idlest()) {
      if (signal.aborted) return;
      const record = machines.records.findByKey(run.row.sandboxKey);
      if (!record) continue;
      const { sleepAfterMs, keepAlive, maxLifetimeMs } = record.config;
      const dueMs = Math.min(
        keepAlive ? Infinity : sleepAfterMs - idleMs,
        (maxLifetimeMs ?? Infinity) - run.activity.ageMs,
      );
      waitMs = Math.max(oftenMs, Math.min(waitMs, dueMs));
      if (keepAlive || idleMs <= sleepAfterMs) run.expiry = undefined;
      if (looksForDeaths && !run.isAlive()) void run.endIfDead();
      else if (maxLifetimeMs !== null && run.activity.ageMs > maxLifetimeMs) {
        sleep(machines, sandboxes.sleep(run, "lifetime"));
      } else if (!keepAlive && idleMs > sleepAfterMs) {
        if (graceLeftMs(machines, record, run) === 0) sleep(machines, sandboxes.sleep(run, "idle"));
      } else if (now - Math.round(idleMs) > record.lastActive + 60_000) {
        noteActive(machines, record.key, now - Math.round(idleMs));
      }
    }
  }
}

/** On a full disk the next look does it: the loop that puts sandboxes to sleep must go on. */
function noteActive({ records }: Machines, key: string, at: number): void {
  try {
    records.setLastActive(key, at);
  } catch (error) {
    if (!isNotTaken(error)) throw error;
  }
}

/** Under five percent of free space running sandboxes go to sleep, idlest first, one at each look. */
export async function guardSpace(machines: Machines, sandboxes: Sandboxes, signal: AbortSignal): Promise<void> {
  for await (const { verdict, freeBytes } of watchSpace(machines.disks.spacePaths, { signal })) {
    if (verdict !== "sleep") continue;
    const idlest = sandboxes.idlest()[0];
    if (!idlest) continue;
    machines.log.error(
      { sandbox: idlest.name, freeBytes },
      "the disk is nearly full: the idlest sandbox goes to sleep",
    );
    sleep(machines, sandboxes.sleep(idlest.run, "space"));
  }
}

function sleep({ log }: Machines, work: Promise<boolean>): void {
  work.catch((error: Error) => log.error({ error: error.message }, "cannot put a sandbox to sleep"));
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
