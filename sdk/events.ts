import { SandboxError } from "../protocol/errors.ts";
import { decodeEvents, encodeEvent, keepAliveMs } from "../protocol/event-stream.ts";
import { textToBytes } from "./bytes.ts";

/**
 * The events of a server-sent event stream, each one's data parsed as JSON. Comments, empty events and a last "[DONE]" are
 * passed over; an event that is cut off by the end of the stream is dropped.
 *
 * Leaving the loop cancels the stream. When `signal` aborts, the loop throws ABORTED and the stream is cancelled.
 * Throws VALIDATION_FAILED for data that is not JSON.
 */
export async function* parseSSEStream<T>(
  stream: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const source = signal ? stream.pipeThrough(new TransformStream<Uint8Array, Uint8Array>(), { signal }) : stream;
  try {
    // Results of commands are events too, as long as their output: no limit but the sender's.
    for await (const { data } of decodeEvents(source, undefined, Number.POSITIVE_INFINITY)) {
      if (data.trim() === "" || data === "[DONE]") continue;
      yield parse<T>(data);
    }
  } catch (error) {
    if (!signal?.aborted || SandboxError.is(error)) throw error;
    throw new SandboxError("ABORTED", "Cannot read the stream on: it was aborted", { cause: signal.reason });
  }
}

function parse<T>(data: string): T {
  try {
    return JSON.parse(data) as T;
  } catch (error) {
    const shown = data.length > 100 ? `${data.slice(0, 100)}…` : data;
    throw new SandboxError("VALIDATION_FAILED", `Cannot read an event: its data is not JSON: ${shown}`, {
      cause: error,
    });
  }
}

/**
 * The events in a Response's body, as parseSSEStream reads them. Throws VALIDATION_FAILED for a Response without a body
 * or with an error status.
 */
export async function* responseToAsyncIterable<T>(
  response: Response,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  if (!response.ok) {
    const status = `${response.status} ${response.statusText}`.trim();
    throw new SandboxError("VALIDATION_FAILED", `Cannot read events from a response: its status is ${status}`);
  }
  if (!response.body) throw new SandboxError("VALIDATION_FAILED", "Cannot read events from a response without a body");
  yield* parseSSEStream<T>(response.body, signal);
}

/**
 * A stream of server-sent events with one JSON event for each value, asked for as the reader reads. The iterable is
 * ended when the stream is cancelled or `signal` aborts, and what it throws errors the stream.
 * `serialize` (default JSON.stringify) makes an event's data.
 */
export function asyncIterableToSSEStream<T>(
  values: AsyncIterable<T>,
  options: { signal?: AbortSignal; serialize?: (value: T) => string } = {},
): ReadableStream<Uint8Array> {
  const { signal, serialize = (value: T) => JSON.stringify(value) } = options;
  async function* events(): AsyncGenerator<string> {
    for await (const value of values) yield encodeEvent({ data: oneLine(serialize(value)) });
  }
  return streamOf(events(), signal);
}

/** In server-sent events every line of data has its own field. */
function oneLine(data: string): string {
  return data.includes("\n") ? data.split(/\r\n|\r|\n/).join("\ndata: ") : data;
}

/** Text pieces as a stream of bytes, made as they are read. */
export function streamOf(pieces: AsyncGenerator<string>, signal?: AbortSignal): ReadableStream<Uint8Array> {
  let stop = () => {};
  return new ReadableStream<Uint8Array>(
    {
      start(sink) {
        if (!signal) return;
        const abort = () => {
          sink.error(new SandboxError("ABORTED", "Cannot go on: the stream was aborted", { cause: signal.reason }));
          void pieces.return(undefined);
        };
        if (signal.aborted) return abort();
        signal.addEventListener("abort", abort, { once: true });
        stop = () => signal.removeEventListener("abort", abort);
      },
      async pull(sink) {
        const next = await pieces.next();
        if (signal?.aborted) return;
        if (!next.done) return sink.enqueue(textToBytes(next.value));
        stop();
        sink.close();
      },
      async cancel() {
        stop();
        await pieces.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

/** `pieces`, with a comment line whenever none has come for a while, so that no proxy takes the stream for dead. */
export async function* withKeepAlive(pieces: AsyncGenerator<string>, everyMs = keepAliveMs): AsyncGenerator<string> {
  try {
    for (;;) {
      const next = pieces.next();
      let timer: ReturnType<typeof setTimeout> | undefined;
      const quiet = () => new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), everyMs)));
      let piece: IteratorResult<string> | undefined;
      try {
        while (!(piece = await Promise.race([next, quiet()]))) yield ":\n\n";
      } finally {
        clearTimeout(timer);
      }
      if (piece.done) return;
      yield piece.value;
    }
  } finally {
    await pieces.return(undefined);
  }
}
