/**
 * Waits until `probe` gives a truthy value and returns it. Fails after `limitMs` (default a minute: a shared machine may be ten
 * times as slow as one alone) with the words of what was awaited and the last error or value seen. For tests: it replaces every sleep.
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  limitMs = 60_000,
): Promise<Exclude<Awaited<T>, Falsy>> {
  const deadline = performance.now() + limitMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value as Exclude<Awaited<T>, Falsy>;
      last = value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`Cannot see that ${what} within ${limitMs} ms`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

type Falsy = false | 0 | "" | null | undefined;
