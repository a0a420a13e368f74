import { type FileWatchSSEEvent, parseSSEStream, type Sandbox } from "../../sdk/index.ts";

export type Watched = AsyncDisposable & {
  events: FileWatchSSEEvent[];
  /** "create /tmp/f", in the order in which they were told. */
  told(): string[];
  /** That events were lost was told. */
  lost(): boolean;
  ended: Promise<void>;
};

/** A watch whose events are collected. */
export async function collect(box: Sandbox, path: string, options?: Parameters<Sandbox["watch"]>[1]): Promise<Watched> {
  const stream = await box.watch(path, options);
  const events: FileWatchSSEEvent[] = [];
  const gone = new AbortController();
  const reading = (async () => {
    for await (const event of parseSSEStream<FileWatchSSEEvent>(stream, gone.signal)) events.push(event);
  })();
  reading.catch(() => {}); // awaited by `ended`
  return {
    events,
    told: () => events.flatMap((event) => (event.type === "event" ? [`${event.eventType} ${event.path}`] : [])),
    lost: () => events.some((event) => event.type === "error" && event.overflow),
    ended: reading,
    async [Symbol.asyncDispose]() {
      gone.abort();
      await reading.catch(() => {});
    },
  };
}

/** What a reader knows of a tree who knew these paths, and believes every event since. */
export function follow(known: Iterable<string>, events: readonly FileWatchSSEEvent[]): Set<string> {
  const paths = new Set(known);
  let departed: { from: string; paths: string[] } | undefined;
  for (const event of events) {
    if (event.type !== "event") continue;
    const { eventType, path } = event;
    if (eventType === "delete" || eventType === "move_from") {
      const gone = [...paths].filter((one) => one === path || one.startsWith(`${path}/`));
      for (const one of gone) paths.delete(one);
      departed = { from: path, paths: eventType === "move_from" ? gone : [] };
    } else if (eventType === "create") paths.add(path);
    else if (eventType === "move_to") {
      paths.add(path);
      // what lay in a directory that was renamed within the tree goes with it
      if (departed) for (const one of departed.paths) paths.add(path + one.slice(departed.from.length));
      departed = undefined;
    }
  }
  return paths;
}
