import type { Activity } from "../sandbox/activity.ts";

/** No message that says whether somebody is there is longer; what people do and servers tell mostly is. */
const signOfLifeBytes = 512;

/** Signs of life come every few seconds (Next.js 2.5, most 15 to 30); who types or plays is quicker. */
const slowMs = 2_000;

/** Pings and pongs of the protocol, of the page and of its framework: so many kinds may take turns. */
const rememberedSizes = 4;

/**
 * Whether what flows in one direction of an open stream is use. All bytes are, but for signs of life, by which forgotten tabs
 * and their servers say again and again that they are still there: something small that comes slowly and is just as long as
 * something that came before. What says anything new is almost never of the same few lengths for minutes.
 */
export class StreamUse {
  readonly #activity: Pick<Activity, "touch">;
  readonly #sizes: number[] = [];
  #lastMs = -Infinity;

  constructor(activity: Pick<Activity, "touch">) {
    this.#activity = activity;
  }

  /** So many bytes came at once. */
  flow(bytes: number, nowMs = performance.now()): void {
    const isSlow = nowMs - this.#lastMs >= slowMs;
    this.#lastMs = nowMs;
    const isKnown = bytes <= signOfLifeBytes && this.#sizes.includes(bytes);
    if (bytes <= signOfLifeBytes && !isKnown) {
      this.#sizes.push(bytes);
      if (this.#sizes.length > rememberedSizes) this.#sizes.shift();
    }
    if (!isSlow || !isKnown) this.#activity.touch();
  }
}
