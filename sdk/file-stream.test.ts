import assert from "node:assert/strict";
import { test } from "node:test";
import { asyncIterableToSSEStream } from "./events.ts";
import { collectFile, streamFile } from "./file-stream.ts";
import type { FileStreamEvent } from "./file-types.ts";

const text = { mimeType: "text/plain", size: 4, isBinary: false, encoding: "utf-8" } as const;
const binary = { mimeType: "image/png", size: 4, isBinary: true, encoding: "base64" } as const;

function stream(...events: FileStreamEvent[]): ReadableStream<Uint8Array> {
  return asyncIterableToSSEStream(
    (async function* () {
      yield* events;
    })(),
  );
}

test("a text file is collected as text", async () => {
  const events = stream(
    { type: "metadata", ...text },
    { type: "chunk", data: "a✓" },
    { type: "chunk", data: "b" },
    { type: "complete", bytesRead: 5 },
  );
  assert.deepEqual(await collectFile(events), { content: "a✓b", metadata: text });
});

test("a binary file is collected as bytes", async () => {
  const events = stream(
    { type: "metadata", ...binary },
    { type: "chunk", data: "AP8=" },
    { type: "chunk", data: "AQI=" },
    { type: "complete", bytesRead: 4 },
  );
  assert.deepEqual(await collectFile(events), { content: new Uint8Array([0, 255, 1, 2]), metadata: binary });
});

test("an empty file is empty text or no bytes", async () => {
  const complete = { type: "complete", bytesRead: 0 } as const;
  assert.equal((await collectFile(stream({ type: "metadata", ...text }, complete))).content, "");
  assert.deepEqual((await collectFile(stream({ type: "metadata", ...binary }, complete))).content, new Uint8Array(0));
});

test("streamFile gives chunks as they come and returns the metadata", async () => {
  const chunks = streamFile(
    stream({ type: "metadata", ...text }, { type: "chunk", data: "a" }, { type: "complete", bytesRead: 1 }),
  );
  assert.deepEqual(await chunks.next(), { done: false, value: "a" });
  assert.deepEqual(await chunks.next(), { done: true, value: text });
});

test("an error, or a stream that ends too early, is never taken for the whole file", async () => {
  const metadata = { type: "metadata", ...text } as const;
  const interrupted = { code: "OPERATION_INTERRUPTED" };
  await assert.rejects(collectFile(stream(metadata, { type: "error", error: "gone" })), {
    ...interrupted,
    message: /gone/,
  });
  await assert.rejects(collectFile(stream(metadata, { type: "chunk", data: "a" })), interrupted);
  await assert.rejects(collectFile(stream()), interrupted);
});
