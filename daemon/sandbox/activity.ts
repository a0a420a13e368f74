/** Below this share of one processor a sandbox is idle: an idle dev server with its watchers stays under it, a build never. */
const idleCpuShare = 0.02;

/** Whether a run is used. All times are monotonic, in milliseconds: the wall clock may jump. */
export class Activity {
  readonly #cpuNs: () => number | undefined;
  #holds = 0;
  #lastUsedMs = performance.now();
  #lastLook: { atMs: number; cpuNs: number } | undefined;
  readonly #beganMs: number;

  /** `cpuNs`: processor time of the run so far, undefined when it cannot be read. `ageMs`: of the run, for one taken over. */
  constructor(cpuNs: () => number | undefined, ageMs = 0) {
    this.#cpuNs = cpuNs;
    this.#beganMs = performance.now() - Math.max(0, ageMs);
  }

  get ageMs(): number {
    return performance.now() - this.#beganMs;
  }

  /** A request in flight, or somebody who reads: the run is used until the hold is given back. */
  hold(): Disposable {
    this.#holds++;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#holds--;
        this.#lastUsedMs = performance.now();
      },
    };
  }

  get held(): boolean {
    return this.#holds > 0;
  }

  /** Bytes went through a stream that may be open for days: it counts as use only while something flows. */
  touch(): void {
    this.#lastUsedMs = performance.now();
  }

  /** How long the run has been idle. Called now and then: the processor time between two calls counts as use. */
  idleMs(nowMs = performance.now()): number {
    const cpuNs = this.#cpuNs();
    const last = this.#lastLook;
    if (cpuNs !== undefined) {
      this.#lastLook = { atMs: nowMs, cpuNs };
      const share = last && nowMs > last.atMs ? (cpuNs - last.cpuNs) / 1e6 / (nowMs - last.atMs) : 0;
      if (share > idleCpuShare) this.#lastUsedMs = nowMs;
    }
    return this.held ? 0 : nowMs - this.#lastUsedMs;
  }
}
