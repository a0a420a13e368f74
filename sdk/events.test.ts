import assert from "node:assert/strict";
import { test } from "node:test";
import { SandboxError } from "../protocol/errors.ts";
import { until } from "../test/support/until.ts";
import { joinBytes, textToBytes } from "./bytes.ts";
import {
  asyncIterableToSSEStream,
  parseSSEStream,
  responseToAsyncIterable,
  streamOf,
  withKeepAlive,
} from "./events.ts";

function streamFrom(...chunks: string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(textToBytes(chunk));
      controller.close();
    },
  });
}

async function all<T>(values: AsyncIterable<T>): Promise<T[]> {
  const read: T[] = [];
  for await (const value of values) read.push(value);
  return read;
}

async function* from<T>(...values: T[]): AsyncGenerator<T> {
  yield* values;
}

test("events are parsed as JSON; comments, empty ones and [DONE] are passed over", async () => {
  const stream = streamFrom('data: {"a":1}\n\n:comment\n\ndata:\n\n', 'id: 4\r\ndata: "b"\r\n\r\n', "data: [DONE]\n\n");
  assert.deepEqual(await all(parseSSEStream(stream)), [{ a: 1 }, "b"]);
});

test("an event that is no JSON is VALIDATION_FAILED", async () => {
  await assert.rejects(all(parseSSEStream(streamFrom("data: {oops\n\n"))), { code: "VALIDATION_FAILED" });
});

test("an event may be as long as a command's whole output", async () => {
  const long = "x".repeat(9 * 1024 * 1024);
  const [event] = await all(parseSSEStream<string>(streamFrom("data: ", JSON.stringify(long), "\n\n")));
  assert.equal(event?.length, long.length);
});

test("leaving the loop cancels the stream", async () => {
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(textToBytes("data: 1\n\n")),
    cancel: () => void (cancelled = true),
  });
  for await (const _ of parseSSEStream(stream)) break;
  assert(cancelled);
});

test("an aborted signal ends the loop with ABORTED and cancels the stream", async () => {
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(textToBytes("data: 1\n\n")),
    cancel: () => void (cancelled = true),
  });
  const abort = new AbortController();
  const reading = all(
    (async function* () {
      for await (const event of parseSSEStream(stream, abort.signal)) {
        abort.abort();
        yield event;
      }
    })(),
  );
  await assert.rejects(reading, { code: "ABORTED" });
  await until("the stream is cancelled", () => cancelled);
});

test("a Response is read, one with an error status or no body is refused", async () => {
  assert.deepEqual(await all(responseToAsyncIterable(new Response("data: 1\n\n"))), [1]);
  await assert.rejects(all(responseToAsyncIterable(new Response("", { status: 500 }))), { code: "VALIDATION_FAILED" });
  await assert.rejects(all(responseToAsyncIterable(new Response(null))), { code: "VALIDATION_FAILED" });
});

test("what is made a stream comes back the same", async () => {
  const values = [{ a: "line\nbreak\r\n✓" }, 2, null, "[x]"];
  assert.deepEqual(await all(parseSSEStream(asyncIterableToSSEStream(from(...values)))), values);
});

test("lines of a serializer of one's own become lines of data", async () => {
  const stream = asyncIterableToSSEStream(from(1), { serialize: () => '{\n"a":\r\n1}' });
  assert.equal(new TextDecoder().decode(joinBytes(await all(chunksOf(stream)))), 'data: {\ndata: "a":\ndata: 1}\n\n');
});

test("a stream asks for values only as it is read", async () => {
  let made = 0;
  async function* counted(): AsyncGenerator<number> {
    for (;;) yield made++;
  }
  const reader = asyncIterableToSSEStream(counted()).getReader();
  await reader.read();
  await reader.read();
  assert.equal(made, 2);
  await reader.cancel();
});

test("cancelling the stream, or aborting it, ends the iterable", async () => {
  for (const how of ["cancel", "abort"]) {
    let ended = false;
    async function* endless(): AsyncGenerator<number> {
      try {
        for (;;) yield 1;
      } finally {
        ended = true;
      }
    }
    const abort = new AbortController();
    const reader = asyncIterableToSSEStream(endless(), { signal: abort.signal }).getReader();
    await reader.read();
    if (how === "cancel") await reader.cancel();
    else {
      abort.abort();
      await assert.rejects(reader.read(), (error) => SandboxError.is(error, "ABORTED"));
    }
    await until("the iterable has ended", () => ended);
  }
});

test("what the iterable throws errors the stream", async () => {
  async function* broken(): AsyncGenerator<number> {
    yield 1;
    throw new Error("torn");
  }
  await assert.rejects(all(parseSSEStream(asyncIterableToSSEStream(broken()))), { message: "torn" });
});

test("a quiet stream carries comments, and nothing of it is lost", async () => {
  let speak = () => {};
  const spoken = new Promise<void>((resolve) => (speak = resolve));
  async function* quiet(): AsyncGenerator<string> {
    yield "data: 1\n\n";
    await spoken;
    yield "data: 2\n\n";
  }
  let text = "";
  for await (const chunk of chunksOf(streamOf(withKeepAlive(quiet(), 5)))) {
    text += new TextDecoder().decode(chunk);
    if (text.split(":\n\n").length > 3) speak();
  }
  assert.match(text, /^data: 1\n\n(:\n\n){3,}data: 2\n\n$/);
});

async function* chunksOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}
