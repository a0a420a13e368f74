import { isDeepStrictEqual } from "node:util";
import { requireSandboxId } from "../../protocol/names.ts";
import type { SandboxConfig } from "../../protocol/options.ts";
import type { EndReason, SandboxInfo, SandboxState } from "../../protocol/sandbox.ts";
import { SandboxError } from "../../protocol/errors.ts";
import { requireIsolation } from "../runtime/host.ts";
import { requireCapacity } from "./capacity.ts";
import { claimWarm, furnishClaimed } from "./claim.ts";
import { changeConfig, defaultImage, newConfig, type StoredConfig } from "./config.ts";
import { endRun, whyLost } from "./end.ts";
import { endingOf, giveBack } from "./give-back.ts";
import { describeSandbox } from "./info.ts";
import type { JournalLine } from "./journal.ts";
import type { Machines } from "./machines.ts";
import type { RunRecord, SandboxRecord } from "./record.ts";
import { Run } from "./run.ts";
import { startRun, type StartedRun } from "./start.ts";
import { WarmPool } from "./warm-pool.ts";

/** Btrfs makes a removal durable within 30 s; until well after that it is done again by each recovery. */
const garbageMs = 5 * 60_000;

/** A start takes well under a second; a host under great load may need many. After this it has failed. */
const startLimitMs = 60_000;

/** After a start its caller's first commands come; nothing is made for nobody beside them. */
const quietMs = 50;

/** Visitors of a preview may ask for a start that fails as often as they like: the journal grows by a line for each of these times. */
const sameFailureMs = 10_000;

type Live =
  | { state: "starting"; run: Promise<Run> }
  | { state: "running"; run: Run }
  | { state: "stopping"; done: Promise<void> };

/**
 * All sandboxes of this daemon: names to records and runs. One start at a time for each name, and everybody who needs
 * the run waits for that one; a run that ends is given back whole before the next begins.
 */
export class Sandboxes {
  readonly #machines: Machines;
  /** By sandbox key; a sandbox that is not here is asleep. */
  readonly #live = new Map<string, Live>();
  #closing = false;
  #held: Promise<void> = Promise.resolve();
  /** The images that the store was told last; most sandboxes are made on one that is held already. */
  #told: ReadonlySet<string> | undefined;
  /** Starts under way, and when the last one ended. */
  #starts = { count: 0, lastMs: -Infinity };
  /** What starts failed of lately, by sandbox key. */
  readonly #failures = new Map<string, { words: string; toldMs: number }>();
  /** Runs that wait for sandboxes to come. */
  readonly warm: WarmPool;

  constructor(machines: Machines) {
    this.#machines = machines;
    this.warm = new WarmPool(machines, {
      holdImages: (digest) => this.#holdImages(digest),
      isBusy: () => this.#starts.count > 0 || performance.now() - this.#starts.lastMs < quietMs,
    });
  }

  /** Takes over a run that an earlier daemon left. */
  adopt(started: StartedRun): void {
    if (started.row.warm) return this.warm.adopt(started);
    const run = this.#makeRun(started);
    this.#live.set(started.row.sandboxKey, { state: "running", run });
    run.recallCommands().catch((error: Error) => {
      this.#machines.log.warn({ run: run.row.id, error: error.message }, "cannot recall what runs in a sandbox");
    });
  }

  /** Whoever wants this sandbox waits until the run that an earlier daemon left is given back. */
  adoptEnd({ id, sandboxKey }: RunRecord, given: Promise<void>): void {
    const done = given.finally(() => this.#live.delete(sandboxKey));
    this.#live.set(sandboxKey, { state: "stopping", done });
    done.catch((error: Error) => {
      // the row stays, and the next start tries again
      this.#machines.log.error({ run: id, error: error.message }, "cannot give back all of a run");
    });
  }

  /** The run of this sandbox, held in use until the hold is given back; made or woken when there is none. */
  async enter(name: string, signal: AbortSignal): Promise<{ run: Run; hold: Disposable }> {
    for (;;) {
      signal.throwIfAborted();
      const record = this.#machines.records.find(name) ?? (await this.configure(name, {}));
      const live = this.#live.get(record.key);
      if (live?.state === "running") return { run: live.run, hold: live.run.activity.hold() };
      if (live?.state === "stopping") await abortable(live.done, signal);
      else await abortable(live?.run ?? this.#start(record), signal);
    }
  }

  /** What `enter` gives, when it has not to wait for it. */
  enterIfAwake(name: string): { run: Run; hold: Disposable } | undefined {
    const live = this.#liveOf(name);
    return live?.state === "running" ? { run: live.run, hold: live.run.activity.hold() } : undefined;
  }

  /** The run if there is one, held in use; nothing is woken. A start under way is waited for. */
  async peek(name: string): Promise<{ run: Run; hold: Disposable } | undefined> {
    const live = this.#liveOf(name);
    if (live?.state === "starting") await live.run.catch(() => {}); // whoever asked for the start is told
    const now = this.#liveOf(name);
    return now?.state === "running" ? { run: now.run, hold: now.run.activity.hold() } : undefined;
  }

  /** Makes the record when there is none, and applies these options. */
  async configure(name: string, given: SandboxConfig): Promise<SandboxRecord> {
    const { records, images, config } = this.#machines;
    const existing = records.find(name);
    if (existing) return this.change(name, (current) => changeConfig(name, current, existing.image, given));
    requireSandboxId(name);
    requireIsolation(given.isolation ?? "container");
    const stored = newConfig(given, config);
    const image = await images.find(given.image ?? defaultImage);
    if (!image) {
      throw new SandboxError(
        "IMAGE_NOT_FOUND",
        `Cannot make sandbox "${name}": there is no image "${given.image ?? defaultImage}"`,
        {
          suggestion: "See atoll image ls; build one with atoll image build NAME",
        },
      );
    }
    await this.#holdImages(image.digest);
    // somebody else may have made it while we waited
    const meanwhile = records.find(name);
    if (meanwhile) return this.configure(name, given);
    const record = records.add(
      { name, config: stored, image: given.image ?? defaultImage, imageDigest: image.digest },
      Date.now(),
    );
    this.#machines.journal.append({ ...lineOf(record), type: "created", data: { image: image.digest } });
    return record;
  }

  /** Changes the options of an existing sandbox. Throws SANDBOX_NOT_FOUND. */
  change(name: string, apply: (current: StoredConfig) => StoredConfig): SandboxRecord {
    const record = this.require(name);
    const config = apply(record.config);
    if (isDeepStrictEqual(config, record.config)) return record; // an app tells its class's options with each request
    this.#machines.records.setConfig(record.key, config);
    return { ...record, config };
  }

  find(name: string): SandboxRecord | undefined {
    return this.#machines.records.find(name);
  }

  /** Throws SANDBOX_NOT_FOUND. */
  require(name: string): SandboxRecord {
    const record = this.find(name);
    if (record) return record;
    throw new SandboxError("SANDBOX_NOT_FOUND", `Cannot find sandbox "${name}"`, {
      suggestion: "See atoll ls for those there are",
    });
  }

  /** Whether it has a run that can be used now. */
  isAwake(key: string): boolean {
    return this.#live.get(key)?.state === "running";
  }

  info(name: string): SandboxInfo {
    return this.#describe(this.require(name));
  }

  list(query: { state?: SandboxState | undefined; labels?: Record<string, string> | undefined }): SandboxInfo[] {
    const labels = Object.entries(query.labels ?? {});
    return this.#machines.records
      .list()
      .filter((record) => labels.every(([name, value]) => record.config.labels[name] === value))
      .map((record) => this.#describe(record))
      .filter((info) => query.state === undefined || info.state === query.state);
  }

  /** Sleep now: processes get `signal` and a little time, then the run ends; the disk stays. */
  async stop(name: string, signal = "SIGTERM", reason: EndReason = "asked"): Promise<{ existed: boolean }> {
    const record = this.#machines.records.find(name);
    if (!record) return { existed: false };
    await this.#settle(record.key, (run) => this.#end(run, reason, signal));
    return { existed: true };
  }

  /** Removes the sandbox and everything it has. The name is free at once: whoever asks for it now gets another sandbox. */
  async destroy(name: string): Promise<{ existed: boolean }> {
    const { records } = this.#machines;
    const record = records.find(name);
    if (!record) return { existed: false };
    // the line goes on to say whose the key was: its run's end comes after this
    const { className } = record.config;
    const line = { ...lineOf(record), type: "destroyed", data: { name: record.name, className } };
    this.#machines.journal.write(line, () => records.discard(record, Date.now()));
    this.#failures.delete(record.key);
    this.#machines.ports.forget(record.key);
    this.#machines.services.forget(record.key);
    while (this.#live.has(record.key)) await this.#settle(record.key, (run) => this.#end(run, "asked", "SIGKILL"));
    await this.clear(record.key);
    return { existed: true };
  }

  /** Removes what is left of a destroyed sandbox. */
  async clear(key: string): Promise<void> {
    const { disks, network, records } = this.#machines;
    await disks.destroy(key);
    await network.forgetNames(key);
    records.forgetGarbage(Date.now() - garbageMs);
    await this.#holdImages();
  }

  /** Running sandboxes, the longest idle first. */
  idlest(): { name: string; run: Run; idleMs: number }[] {
    const nowMs = performance.now();
    const runs = [...this.#live.values()].flatMap((live) => (live.state === "running" ? [live.run] : []));
    return runs
      .flatMap((run) => {
        const record = this.#machines.records.findByKey(run.row.sandboxKey);
        return record ? [{ name: record.name, run, idleMs: run.activity.idleMs(nowMs) }] : [];
      })
      .sort((a, b) => b.idleMs - a.idleMs);
  }

  /** Ends a run that nobody holds; false when somebody does, or it is ending already. */
  async sleep(run: Run, reason: "idle" | "lifetime" | "space"): Promise<boolean> {
    const live = this.#live.get(run.row.sandboxKey);
    if (live?.state !== "running" || live.run !== run) return false;
    if (reason === "idle" && run.activity.held) return false;
    await this.#end(run, reason, "SIGTERM");
    return true;
  }

  /** Puts every sandbox to sleep and empties the warm pool; no start is possible afterwards. */
  async stopAll(): Promise<void> {
    this.#closing = true;
    const ends = [...this.#live.keys()].map((key) => this.#settle(key, (run) => this.#end(run, "asked", "SIGTERM")));
    // one that cannot be given back whole must not keep the others from it
    const failed = (await Promise.allSettled([...ends, this.warm.end()])).find((end) => end.status === "rejected");
    if (failed) throw failed.reason;
  }

  /** Lets go of every run: they go on without this daemon. Starts under way are finished first. */
  async leave(): Promise<void> {
    this.#closing = true;
    const settled = [...this.#live.values()].map(
      async (live) => void (live.state === "stopping" ? await live.done : await live.run),
    );
    await Promise.allSettled([...settled, this.warm.leave()]);
    for (const live of this.#live.values()) if (live.state === "running") live.run.leave();
  }

  #start(record: SandboxRecord): Promise<Run> {
    let { key } = record;
    const starting = (async () => {
      if (this.#closing)
        throw new SandboxError("SANDBOX_UNAVAILABLE", "Cannot start a sandbox: the daemon is going down");
      await requireCapacity(this.#machines);
      const claimed = claimWarm(this.#machines, this.warm, key);
      if (claimed) {
        this.#rekey(key, claimed.record.key);
        key = claimed.record.key;
        const started = await furnishClaimed(this.#machines, claimed);
        if (started) return this.#makeRun(started);
      }
      await this.#clearLeftover(key);
      const now = this.#machines.records.findByKey(key) ?? record;
      return this.#makeRun(await startRun(this.#machines, now, AbortSignal.timeout(startLimitMs)));
    })();
    this.#live.set(key, { state: "starting", run: starting });
    this.#starts.count++;
    starting
      .finally(() => {
        this.#starts = { count: this.#starts.count - 1, lastMs: performance.now() };
      })
      .then(
        (run) => {
          this.#live.set(key, { state: "running", run });
          this.#failures.delete(key);
        },
        (error: Error) => {
          this.#live.delete(key);
          this.#machines.log.warn({ sandbox: record.name, error: error.message }, "cannot start a sandbox");
          if (!this.#closing) this.#journalFailure(key, error);
        },
      );
    return starting;
  }

  /** Whoever waits for the sandbox's start finds it by the key that it has now. */
  #rekey(from: string, to: string): void {
    const live = this.#live.get(from);
    this.#live.delete(from);
    this.#failures.delete(from);
    if (live) this.#live.set(to, live);
  }

  /** A run that could not be given back whole, because something of the host held it: it is tried again now. */
  async #clearLeftover(key: string): Promise<void> {
    const row = this.#machines.records.runOf(key);
    if (row) await giveBack(this.#machines, row, { ...endingOf(row), at: Date.now() });
  }

  #makeRun(started: StartedRun): Run {
    return new Run(this.#machines, started, (run) => void this.#lost(run));
  }

  /** Ends the run that is there or about to be, or waits for its end. */
  async #settle(key: string, end: (run: Run) => Promise<void>): Promise<void> {
    const live = this.#live.get(key);
    // a failure is told to whoever asked for it; a run that was claimed meanwhile has brought another key
    const started = live?.state === "starting" ? await live.run.catch(() => undefined) : undefined;
    const now = this.#live.get(started?.row.sandboxKey ?? key);
    if (now?.state === "running") await end(now.run);
    else if (now?.state === "stopping") await now.done;
  }

  /** The agent is dead though nobody asked. */
  async #lost(run: Run): Promise<void> {
    const live = this.#live.get(run.row.sandboxKey);
    if (live?.state !== "running" || live.run !== run) return;
    const record = this.#machines.records.findByKey(run.row.sandboxKey);
    const { reason, words } = whyLost(this.#machines, run, record);
    this.#machines.log.warn({ sandbox: record?.name, run: run.row.id, reason }, words);
    await this.#end(run, reason, "SIGKILL", words);
  }

  #end(run: Run, reason: EndReason, signal: string, detail?: string): Promise<void> {
    const key = run.row.sandboxKey;
    const ending = { reason, ...(detail !== undefined && { detail }) };
    const done = endRun(this.#machines, run, ending, signal, () => this.#live.delete(key));
    this.#live.set(key, { state: "stopping", done });
    return done;
  }

  /** Tells the store which images our disks need, one telling at a time: each replaces the former. */
  #holdImages(another?: string): Promise<void> {
    const { images, config, records } = this.#machines;
    const tell = async () => {
      const digests = records.imagesInUse().union(new Set(another === undefined ? [] : [another]));
      if (this.#told?.symmetricDifference(digests).size === 0) return;
      this.#told = undefined; // while it is told nobody knows
      await images.hold(config, [...digests]);
      this.#told = digests;
    };
    this.#held = this.#held.then(tell, tell);
    return this.#held;
  }

  #liveOf(name: string): Live | undefined {
    const record = this.#machines.records.find(name);
    return record && this.#live.get(record.key);
  }

  #describe(record: SandboxRecord): SandboxInfo {
    const live = this.#live.get(record.key);
    return describeSandbox(this.#machines, record, live?.state, live?.state === "running" ? live.run : undefined);
  }

  #journalFailure(key: string, error: Error): void {
    const record = this.#machines.records.findByKey(key);
    if (!record) return;
    const last = this.#failures.get(key);
    if (last?.words === error.message && performance.now() < last.toldMs + sameFailureMs) return;
    this.#failures.set(key, { words: error.message, toldMs: performance.now() });
    const told = SandboxError.is(error)
      ? error
      : new SandboxError("INTERNAL_ERROR", `Cannot start sandbox "${record.name}": ${error.message}`);
    this.#machines.journal.write({ ...lineOf(record), type: "start.failed", data: { error: told.toJSON() } });
  }
}

function lineOf({ key, runNumber }: SandboxRecord): Pick<JournalLine, "time" | "sandboxKey" | "run"> {
  return { time: Date.now(), sandboxKey: key, run: runNumber };
}

/** Waits for work that goes on when the waiter leaves. */
async function abortable(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const gone = Promise.withResolvers<never>();
  const onAbort = () => gone.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([work, gone.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
