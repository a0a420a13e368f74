/** Each cut costs a daemon's start, about a second: with this the tests take all of them, else some from end to end. */
const all = process.env["ATOLL_CRASH_ALL"] === "1";

/** At most `count` of the items, evenly from the first to the last. */
export function spread<T>(items: readonly T[], count: number): T[] {
  if (all || items.length <= count) return [...items];
  return Array.from({ length: count }, (_, index) => items[Math.round((index * (items.length - 1)) / (count - 1))]!);
}
