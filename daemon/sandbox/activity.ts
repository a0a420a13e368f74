/** Below this share of one processor a sandbox is idle: an idle dev server with its watchers stays under it, a build never. */
const idleCpuShare = 0.02;

/** In less time than this the few milliseconds that anything costs would look like a busy processor. */
const shortestLookMs = 100;

/** What starting and reaping a process costs its parents, which nobody tells as the process's own. */
const startCostMs = 20;

/** Whether a run is used. All times are monotonic, in milliseconds: the wall clock may jump. */
export class Activity {
  readonly #cpuNs: () => number | undefined;
  #holds = 0;
  #lastUsedMs = performance.now();
  #lastLook: { atMs: number; cpuNs: number } | undefined;
  readonly #beganMs: number;
  #uncounted = 0;
  #discountNs = 0;

  /** `cpuNs`: processor time of the run so far, undefined when it cannot be read. `ageMs`: of the run, for one taken over. */
  constructor(cpuNs: () => number | undefined, ageMs = 0) {
    this.#cpuNs = cpuNs;
    this.#beganMs = performance.now() - Math.max(0, ageMs);
  }

  get ageMs(): number {
    return performance.now() - this.#beganMs;
  }

  /** When it was last seen to be used, on the clock of `performance.now`. */
  get lastUsedMs(): number {
    return this.#lastUsedMs;
  }

  /** A request in flight, or somebody who reads: the run is used until the hold is given back. */
  hold(): Disposable {
    this.#holds++;
    return new Hold(this.#giveBack);
  }

  get held(): boolean {
    return this.#holds > 0;
  }

  /** Bytes went through a stream that may be open for days: it counts as use only while something flows. */
  touch(): void {
    this.#lastUsedMs = performance.now();
  }

  /**
   * From now on, for at most `limitMs`, processor time is not taken for use: something fails again and again, and that
   * must not keep the run from sleeping. Who calls what is returned tells how much of it, in milliseconds, was for nothing;
   * the rest of that time is judged by the next look.
   */
  uncount(limitMs: number): (cpuMs: number) => void {
    this.#judge(performance.now());
    this.#uncounted++;
    let open = true;
    const end = (cpuMs: number) => {
      if (!open) return;
      open = false;
      clearTimeout(timer);
      this.#uncounted--;
      this.#discountNs += (Math.max(0, cpuMs) + startCostMs) * 1e6;
    };
    const timer = setTimeout(() => end(0), limitMs).unref();
    return end;
  }

  /** How long the run has been idle. Called now and then: the processor time between two calls counts as use. */
  idleMs(nowMs = performance.now()): number {
    this.#judge(nowMs);
    return this.held ? 0 : nowMs - this.#lastUsedMs;
  }

  readonly #giveBack = () => {
    this.#holds--;
    this.#lastUsedMs = performance.now();
  };

  /** Whether the processor time since the last look was use. */
  #judge(nowMs: number): void {
    if (this.#uncounted > 0) return;
    const cpuNs = this.#cpuNs();
    const last = this.#lastLook;
    if (cpuNs === undefined || (last && nowMs - last.atMs < shortestLookMs)) return;
    this.#lastLook = { atMs: nowMs, cpuNs };
    const usedNs = last ? cpuNs - last.cpuNs - this.#discountNs : 0;
    const share = last ? usedNs / 1e6 / (nowMs - last.atMs) : 0;
    this.#discountNs = 0;
    if (share > idleCpuShare) this.#lastUsedMs = nowMs;
  }
}

/** Gives back once. A class, because every request takes one, and a literal with a symbol for a key is made slowly. */
class Hold implements Disposable {
  #giveBack: (() => void) | undefined;

  constructor(giveBack: () => void) {
    this.#giveBack = giveBack;
  }

  [Symbol.dispose](): void {
    const giveBack = this.#giveBack;
    this.#giveBack = undefined;
    giveBack?.();
  }
}
