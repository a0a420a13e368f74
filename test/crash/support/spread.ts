/** Each cut costs a daemon's start, about a second: with this the tests take all of them, else some from end to end. */
const all = process.env["ATOLL_CRASH_ALL"] === "1";

/** At most `count` of the items, evenly from the first to the last. */
export function spread<T>(items: readonly T[], count: number): T[] {
  if (all || items.length <= count) return [...items];
  return Array.from({ length: count }, (_, index) => items[Math.round((index * (items.length - 1)) / (count - 1))]!);
}

/**
 * Whether another step is the same but for its place: groups of version 1 have ten hierarchies, whose files and removals are
 * alike, and an agent is greeted until it answers. The first of each is enough.
 */
export function isAlike(step: string): boolean {
  return (
    /^(rmdirSync|openSync|writeFileSync) \/sys\/fs\/cgroup\/(?!cpu\/|\S*(limit_in_bytes|pids\.max))/.test(step) ||
    /^GET \/hello \(\d+\)$/.test(step)
  );
}
