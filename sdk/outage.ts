import { SandboxError } from "../protocol/errors.ts";
import { silenceLimitMs } from "../protocol/event-stream.ts";

/** How long the transport waits for what. Tests shorten it. */
export type Patience = {
  /** Without a byte for this long, an event stream is taken for dead. */
  silenceMs: number;
  /** After this long without any answer, a call fails. A daemon restarts within seconds; a minute covers a slow host. */
  giveUpMs: number;
  /** The same while the daemon has never answered: then there most likely is none, and its user wants to know soon. */
  firstContactMs: number;
};

export const defaultPatience: Patience = { silenceMs: silenceLimitMs, giveUpMs: 60_000, firstContactMs: 3_000 };

/** First pause between two attempts, doubled up to the last: quick for a lost connection, sparing for a restart. */
const firstPauseMs = 25;
const lastPauseMs = 2_000;

/**
 * A request that got no answer of a daemon. `sent` is false where it surely never reached one; `beganAt` is the time of a
 * request that had no answer at all, because a connection that is never made may take long to say so.
 */
export type Lost = { lost: string; sent: boolean; beganAt?: number; cause?: unknown };

/** The codes of connections that were never made, in the words of Node, Bun and Deno. */
const neverConnected =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|UND_ERR_CONNECT_TIMEOUT|ConnectionRefused|FailedToOpenSocket|connection refused|dns error/i;

/** What a rejected fetch, or a body that broke off, says. */
export function lostBy(error: unknown): Lost {
  const chain = [error, (error as { cause?: unknown } | null)?.cause].filter((link) => link instanceof Error);
  const words = chain.map((link) => `${(link as { code?: string }).code ?? ""} ${link.message}`).join(" ");
  const last = chain.at(-1);
  const shown = last?.message || (last as { code?: string } | undefined)?.code || String(error);
  return { lost: shown, sent: !neverConnected.test(words), cause: error };
}

/** The waiting of one call between its attempts. */
export type Outage = {
  /** The daemon has answered: the next loss is a new one. */
  over(): void;
  /**
   * Waits before the next attempt, longer each time. Throws SANDBOX_UNAVAILABLE when the time is up, and the signal's
   * reason when it aborts.
   */
  pause(lost: Lost, signal: AbortSignal): Promise<void>;
};

/** `limitMs` counts from the first loss since the last answer. */
export function outage(url: () => string, limitMs: () => number): Outage {
  let since: number | undefined;
  let pauseMs = firstPauseMs;
  return {
    over() {
      since = undefined;
      pauseMs = firstPauseMs;
    },
    async pause(lost, signal) {
      const now = performance.now();
      since ??= lost.beganAt ?? now;
      if (now - since >= limitMs()) throw unreachable(url(), lost);
      // Half of it by chance, so that a daemon that comes back is not met by all its clients at once.
      const waitMs = pauseMs * (0.5 + Math.random() / 2);
      pauseMs = Math.min(pauseMs * 2, lastPauseMs);
      await sleep(Math.min(waitMs, since + limitMs() - now), signal);
    },
  };
}

function unreachable(url: string, lost: Lost): SandboxError {
  return new SandboxError("SANDBOX_UNAVAILABLE", `Cannot reach the daemon at ${url}: ${lost.lost}`, {
    suggestion: 'Start it with "atoll up", or point ATOLL_URL at a daemon that runs',
    details: { url },
    cause: lost.cause,
  });
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error);
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", aborted, { once: true });
    function done(): void {
      signal.removeEventListener("abort", aborted);
      resolve();
    }
    function aborted(): void {
      clearTimeout(timer);
      reject(signal.reason as Error);
    }
  });
}
