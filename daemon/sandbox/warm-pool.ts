import { stateOf } from "../linux/process.ts";
import { spareCapacity } from "./capacity.ts";
import { giveBack } from "./give-back.ts";
import type { Machines } from "./machines.ts";
import type { SandboxRecord, WarmMake } from "./record.ts";
import type { StartedRun } from "./start.ts";
import { describeWarmRun, mayClaim, startWarmRun } from "./warm-run.ts";

/** Whoever starts a daemon wants a sandbox of it at once: that one is not kept waiting. */
const settleMs = 1_000;

/** Dead runs, another image, a host that is short of memory: each is noticed after this at most. */
const lookMs = 2_000;

/** While somebody's start is under way nothing is made; so often it is looked whether it still is. */
const busyMs = 50;

/** After failures in a row, each time twice as long up to the second: the host may lack what a start needs. */
const retryMs = { first: 1_000, most: 60_000 };

/** A start that nobody waits for; a host under great load may take long for it. */
const startLimitMs = 60_000;

export type WarmPoolOptions = {
  /** Says that disks on this image come, or with no digest that some have gone. */
  holdImages(digest?: string): Promise<void>;
  /** Whether somebody waits for a start, or has just got one: the pool is filled when nobody is kept waiting by it. */
  isBusy(): boolean;
};

/**
 * Runs of the base image that wait for the new sandboxes to come. Each is an ordinary run of which only the sandbox is missing, is
 * used once, and appears nowhere until it is claimed. They are made one at a time, and go when the host needs what they take.
 */
export class WarmPool {
  readonly #machines: Machines;
  readonly #options: WarmPoolOptions;
  readonly #size: number;
  #ready: StartedRun[] = [];
  /** On their way out; one that could not be given back whole is tried again. */
  #useless: StartedRun[] = [];
  #make: WarmMake | undefined;
  #closed = false;
  #wake = Promise.withResolvers<void>();
  /** What is being made or given back now. */
  #working: Promise<unknown> = Promise.resolve();

  constructor(machines: Machines, options: WarmPoolOptions) {
    this.#machines = machines;
    this.#options = options;
    this.#size = machines.runtime.usesHostKernel ? machines.config.warmPool : 0;
  }

  /** Takes over a warm run of an earlier daemon, made as one would be made now. */
  adopt(started: StartedRun): void {
    this.#make ??= started.row.warm;
    this.#ready.push(started);
  }

  /** A warm run that may become this sandbox's, and is nobody else's from now on; undefined when there is none. */
  take(sandbox: SandboxRecord): StartedRun | undefined {
    const index = this.#ready.findIndex(
      ({ row }) =>
        row.warm && mayClaim(this.#machines, sandbox, row.warm) && isGood(row.warm, this.#make) && isAlive(row),
    );
    if (index < 0) return undefined;
    this.#wake.resolve();
    return this.#ready.splice(index, 1)[0];
  }

  /** Keeps the pool as it should be until the signal ends it. */
  async keep(signal: AbortSignal): Promise<void> {
    let retryAfterMs = 0;
    await pause(settleMs, [], signal);
    while (!signal.aborted && !this.#closed) {
      await this.#untilQuiet(signal);
      if (this.#closed) break;
      let pauseMs = lookMs;
      this.#wake = Promise.withResolvers();
      try {
        this.#working = this.#look();
        if ((await this.#working) === "short") pauseMs = 0;
        retryAfterMs = 0;
      } catch (error) {
        retryAfterMs = Math.min(retryMs.most, retryAfterMs * 2 || retryMs.first);
        pauseMs = retryAfterMs;
        this.#machines.log.warn({ error: (error as Error).message, retryAfterMs }, "cannot keep the warm pool filled");
      }
      if (pauseMs > 0) await pause(pauseMs, retryAfterMs > 0 ? [] : [this.#wake.promise], signal);
    }
  }

  /** Gives everything back; nothing is made any more. */
  async end(): Promise<void> {
    await this.#close();
    this.#useless.push(...this.#ready.splice(0));
    await this.#giveUseless();
  }

  /** Lets go of all: the next daemon takes them over. One that is being made is finished first. */
  async leave(): Promise<void> {
    await this.#close();
    for (const { link } of this.#ready.splice(0)) link.close();
  }

  async #close(): Promise<void> {
    this.#closed = true;
    this.#wake.resolve();
    await this.#working.catch(() => {}); // told by `keep`
  }

  /** Looking takes time too, which a start that somebody waits for has better use for; but no shortage waits for long. */
  async #untilQuiet(signal: AbortSignal): Promise<void> {
    const latestMs = performance.now() + lookMs;
    while (this.#options.isBusy() && performance.now() < latestMs && !signal.aborted && !this.#closed)
      await pause(busyMs, [], signal);
  }

  /** Gives back what is of no use and makes one where one is missing: one step, then the world is looked at again. */
  async #look(): Promise<"whole" | "short"> {
    if (this.#size === 0 && this.#ready.length + this.#useless.length === 0) return "whole";
    const spare = await spareCapacity(this.#machines);
    if (spare === "none")
      this.#useless.push(...this.#ready.splice(0)); // whatever else could not be told
    else {
      this.#make = await describeWarmRun(this.#machines);
      const good = this.#ready.filter(({ row }) => isGood(row.warm, this.#make) && isAlive(row));
      const kept = new Set(good.slice(0, this.#size));
      this.#useless.push(...this.#ready.filter((started) => !kept.has(started)));
      this.#ready = [...kept];
    }
    await this.#giveUseless();
    if (this.#closed || !this.#make || spare !== "some" || this.#ready.length >= this.#size) return "whole";
    if (!this.#options.isBusy()) {
      await this.#options.holdImages(this.#make.imageDigest);
      this.#ready.push(await startWarmRun(this.#machines, this.#make, AbortSignal.timeout(startLimitMs)));
    }
    return this.#ready.length < this.#size ? "short" : "whole";
  }

  async #giveUseless(): Promise<void> {
    if (this.#useless.length === 0) return;
    const runs = this.#useless.splice(0);
    const results = await Promise.allSettled(
      runs.map(async ({ row, link }) => {
        link.close();
        await giveBack(this.#machines, row, { reason: "asked", at: Date.now() });
      }),
    );
    this.#useless.push(...runs.filter((_, index) => results[index]?.status === "rejected"));
    await this.#options.holdImages();
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }
}

function isGood(warm: WarmMake | undefined, now: WarmMake | undefined): boolean {
  return warm !== undefined && warm.hash === now?.hash && warm.imageDigest === now.imageDigest;
}

function isAlive({ process }: StartedRun["row"]): boolean {
  return process !== undefined && stateOf(process) === "alive";
}

/** Ends at the latest after `ms`. */
async function pause(ms: number, until: readonly Promise<void>[], signal: AbortSignal): Promise<void> {
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, ms);
  const onAbort = () => over.resolve();
  signal.addEventListener("abort", onAbort, { once: true });
  await Promise.race([over.promise, ...until]);
  clearTimeout(timer);
  signal.removeEventListener("abort", onAbort);
}
