import type { Readable } from "node:stream";
import { encodeEvent, keepAliveMs } from "../../protocol/event-stream.ts";
import type { SandboxError } from "../../protocol/errors.ts";
import type { BytesAnswer } from "../sandbox/call.ts";

export type EventSource = AsyncIterable<{ id?: string; event: unknown }>;

/** What may wait for a slow reader in our memory; the rest waits where it comes from. */
const bufferBytes = 64 * 1024;

/**
 * Events as a response: headers at once, a comment line after 15 s of silence, the error as last event when the source
 * fails. `done` is called once: true at the end, false when the reader has gone.
 */
export function eventResponse(
  source: EventSource,
  toError: (error: unknown) => SandboxError,
  done: (complete: boolean) => void,
): Response {
  const events = source[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  let timer: NodeJS.Timeout;
  const finish = (complete: boolean) => {
    clearInterval(timer);
    done(complete);
  };
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        timer = setInterval(() => {
          if ((controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(":\n\n"));
        }, keepAliveMs);
      },
      async pull(controller) {
        try {
          const { done: ended, value } = await events.next();
          if (ended) {
            finish(true);
            controller.close();
            return;
          }
          const data = JSON.stringify(value.event);
          controller.enqueue(encoder.encode(encodeEvent(value.id === undefined ? { data } : { id: value.id, data })));
        } catch (error) {
          const last = { type: "error", timestamp: new Date().toISOString(), error: toError(error) };
          controller.enqueue(encoder.encode(encodeEvent({ data: JSON.stringify(last) })));
          finish(true);
          controller.close();
        }
      },
      async cancel() {
        finish(false);
        await events.return?.();
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: bufferBytes }),
  );
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no" },
  });
}

/** Bytes from inside as a response, with back-pressure; a source that fails cuts the response off. */
export function bytesResponse(answer: BytesAnswer, done: (complete: boolean) => void): Response {
  answer.body.once("close", () => done(answer.body.complete));
  const headers = { "content-type": "application/octet-stream", "cache-control": "no-store", ...answer.headers };
  return new Response(joined(answer.body), { status: answer.status, headers });
}

/** What has come since the last look, as one chunk: a sender of single bytes must not cost us an object each. */
function joined(source: Readable): ReadableStream<Uint8Array> {
  const chunks = read(source);
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: () => void source.destroy(),
    },
    new ByteLengthQueuingStrategy({ highWaterMark: bufferBytes }),
  );
}

async function* read(source: Readable): AsyncGenerator<Uint8Array, void, undefined> {
  source.on("error", () => {}); // looked at below
  for (;;) {
    const chunk = source.read() as Uint8Array | null;
    if (chunk !== null) yield chunk;
    else if (source.readableEnded) return;
    else if (source.destroyed) throw source.errored ?? new Error("The bytes were cut off");
    else await move(source);
  }
}

/** Waits until `read` may give something else. */
function move(source: Readable): Promise<void> {
  const events = ["readable", "end", "error", "close"];
  return new Promise((resolve) => {
    const moved = () => {
      for (const event of events) source.off(event, moved);
      resolve();
    };
    for (const event of events) source.on(event, moved);
  });
}
