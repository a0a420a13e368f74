import { SandboxError } from "../protocol/errors.ts";
import { encodeEvent } from "../protocol/event-stream.ts";
import type { FileEventType, WatchEvent } from "../protocol/watch.ts";
import { streamOf, withKeepAlive } from "./events.ts";
import { callIn, now, type Scope } from "./scope.ts";

/** Which paths below a directory are told. A pattern without a slash is matched with a path's last part: "*.ts". */
export type WatchOptions = {
  /** Also what happens in the directories below. Default true. */
  recursive?: boolean | undefined;
  /** Only these. Not together with `exclude`. */
  include?: readonly string[] | undefined;
  /** All but these, and nothing in them. Default [".git", "node_modules", ".DS_Store"], or nothing with `include`. */
  exclude?: readonly string[] | undefined;
  /** Ends the watch: the stream fails with ABORTED. */
  signal?: AbortSignal | undefined;
};

export type FileWatchEventType = FileEventType;

/** What a watch tells, in the order in which it happened. `stopped`, or an `error` without `overflow`, is the last. */
export type FileWatchSSEEvent =
  | { type: "watching"; path: string; timestamp: string }
  | { type: "event"; eventType: FileEventType; path: string; isDirectory: boolean; timestamp: string }
  /** With `overflow`, events were lost and the watch goes on: look at the tree again. */
  | { type: "error"; error: string; overflow?: true; timestamp: string }
  | { type: "stopped"; reason: string; timestamp: string };

export type CheckChangesOptions = Omit<WatchOptions, "signal"> & {
  /** The version of an earlier answer to the same question. */
  since?: string | undefined;
};

export type CheckChangesResult = {
  success: true;
  /** `resync`: nobody knows; look at the tree, and ask with this version from then on. */
  status: "unchanged" | "changed" | "resync";
  version: string;
  timestamp: string;
};

/** Contract: SessionMethods.watch. */
export async function watch(scope: Scope, path: string, options: WatchOptions): Promise<ReadableStream<Uint8Array>> {
  await scope.ready();
  const { signal } = options;
  const stop = new AbortController();
  const abort = () => stop.abort(signal?.reason);
  if (signal?.aborted) abort();
  else signal?.addEventListener("abort", abort, { once: true });
  const call = { params: { sandbox: scope.sandbox }, body: bodyOf(scope, path, options) };
  const events = toPublic(path, scope.transport.events("watch", call, { signal: stop.signal }));
  const end = async () => {
    signal?.removeEventListener("abort", abort);
    stop.abort(); // what waits for the next event would otherwise wait on
    await events.return(undefined);
  };
  const first = await events.next();
  async function* all(): AsyncGenerator<string> {
    if (!first.done) yield encodeEvent({ data: JSON.stringify(first.value) });
    for await (const event of events) yield encodeEvent({ data: JSON.stringify(event) });
  }
  return endedBy(streamOf(withKeepAlive(all()), signal), end);
}

/** A cancel must reach the daemon although nothing happens in the directory: a generator that waits takes no return. */
function endedBy(stream: ReadableStream<Uint8Array>, end: () => Promise<void>): ReadableStream<Uint8Array> {
  const reader = stream.getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(sink) {
        try {
          const { done, value } = await reader.read();
          if (!done) return sink.enqueue(value);
          sink.close();
        } catch (error) {
          sink.error(error);
        }
        await end();
      },
      async cancel() {
        await Promise.all([end(), reader.cancel()]);
      },
    },
    { highWaterMark: 0 },
  );
}

async function* toPublic(
  path: string,
  events: AsyncGenerator<{ event: WatchEvent }>,
): AsyncGenerator<FileWatchSSEEvent, void, undefined> {
  let watching = false;
  try {
    for await (const { event } of events) {
      const { timestamp } = event;
      // Watched anew after a lost connection: what happened between is unknown.
      if (event.type === "overflow" || (event.type === "watching" && watching)) {
        const error = `Cannot tell everything that happened in ${JSON.stringify(path)}: events were lost. Look at it again`;
        yield { type: "error", error, overflow: true, timestamp };
      } else if (event.type !== "error") yield event; // thrown by the transport
      watching = true;
    }
  } catch (error) {
    if (!watching || SandboxError.is(error, "ABORTED")) throw error;
    yield { type: "error", error: error instanceof Error ? error.message : String(error), timestamp: now() };
  } finally {
    await events.return(undefined);
  }
}

/** Contract: SessionMethods.checkChanges. */
export async function checkChanges(
  scope: Scope,
  path: string,
  options: CheckChangesOptions,
): Promise<CheckChangesResult> {
  const { since } = options;
  const body = { ...bodyOf(scope, path, options), ...(since !== undefined && { since }) };
  return { success: true, ...(await callIn(scope, "checkChanges", { body })), timestamp: now() };
}

function bodyOf(scope: Scope, path: string, { recursive, include, exclude }: WatchOptions) {
  return {
    path,
    session: scope.directory,
    ...(recursive !== undefined && { recursive }),
    ...(include && { include: [...include] }),
    ...(exclude && { exclude: [...exclude] }),
  };
}
