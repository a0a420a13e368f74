/** Connections of one sandbox at the same time. */
export const connectionLimit = 1_024;

/** Lookups of one sandbox that wait for the resolver at the same time: a resolver that hangs must not fill our memory. */
export const pendingLookupLimit = 64;

/** DNS connections over TCP of one sandbox at the same time; programs use one, for single large answers. */
export const dnsConnectionLimit = 16;

/** How a sandbox may use what all of them share. */
export type Load = { own: number; total: number; capacity: number; sandboxes: number };

/**
 * Whether one more connection is taken. While there is room everybody may have 1,024; in the last fifth of the capacity
 * only those that have less than their even share, so that no few sandboxes can shut the others out.
 */
export function admits({ own, total, capacity, sandboxes }: Load): boolean {
  if (own >= connectionLimit || total >= capacity) return false;
  return total < capacity * 0.8 || own < capacity / Math.max(1, sandboxes);
}

/** A rate with a burst. `now` in milliseconds, monotonic. */
export type Rate = {
  /** Whether one more is in it, which is counted then. */
  take(now: number): boolean;
  /** Counts what is done anyway, and gives the milliseconds to wait until there is nothing owed. */
  spend(now: number, amount: number): number;
};

export function createRate(perSecond: number, burst: number): Rate {
  let left = burst;
  let last = 0;
  const refill = (now: number) => {
    left = Math.min(burst, left + ((now - last) / 1000) * perSecond);
    last = now;
  };
  return {
    take: (now) => {
      refill(now);
      if (left < 1) return false;
      left -= 1;
      return true;
    },
    spend: (now, amount) => {
      refill(now);
      left -= amount;
      return Math.max(0, (-left / perSecond) * 1000);
    },
  };
}
