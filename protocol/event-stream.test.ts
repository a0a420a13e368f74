import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeEvents, encodeEvent, type ServerSentEvent } from "./event-stream.ts";

async function decode(chunks: readonly Uint8Array[], limitChars?: number): Promise<ServerSentEvent[]> {
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  const events: ServerSentEvent[] = [];
  for await (const event of decodeEvents(source, undefined, limitChars)) events.push(event);
  return events;
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

const rows: [string, string, ServerSentEvent[]][] = [
  ["an event", "id: 4\ndata: x\n\n", [{ id: "4", data: "x" }]],
  ["an event without an id", "data: x\n\n", [{ data: "x" }]],
  ["no space after the colon", "id:4\ndata:x\n\n", [{ id: "4", data: "x" }]],
  ["one space is taken off, not two", "data:  x\n\n", [{ data: " x" }]],
  ["CRLF", "id: 4\r\ndata: x\r\n\r\n", [{ id: "4", data: "x" }]],
  ["CR", "id: 4\rdata: x\r\rdata: y\r\r", [{ id: "4", data: "x" }, { data: "y" }]],
  ["mixed ends of lines", "data: a\r\ndata: b\rdata: c\n\r\n", [{ data: "a\nb\nc" }]],
  ["a byte order mark", "\uFEFFdata: x\n\n", [{ data: "x" }]],
  ["several lines of data", "data: a\ndata\ndata: b\n\n", [{ data: "a\n\nb" }]],
  ["comments and other fields", ": hi\nevent: e\nretry: 5\ndata: x\nwhatever\n\n:\n\n", [{ data: "x" }]],
  ["an id without data is no event", "id: 4\n\ndata: x\n\n", [{ data: "x" }]],
  ["empty data is an event", "data:\n\n", [{ data: "" }]],
  ["an event that is cut off is dropped", "data: a\n\ndata: b\n", [{ data: "a" }]],
  ["nothing", "", []],
  ["only ends of lines", "\n\r\n\r\n\n", []],
];

for (const [what, text, events] of rows) {
  test(`${what}: read as the standard says, wherever the chunks are cut`, async () => {
    const whole = bytes(text);
    assert.deepEqual(await decode([whole]), events);
    for (let cut = 0; cut <= whole.length; cut++) {
      assert.deepEqual(await decode([whole.subarray(0, cut), whole.subarray(cut)]), events, `cut at ${cut}`);
    }
    assert.deepEqual(await decode(Array.from(whole, (byte) => new Uint8Array([byte]))), events);
  });
}

const event = fc.record(
  { id: fc.stringMatching(/^[0-9-]{1,20}$/), data: fc.json() },
  { requiredKeys: ["data"], noNullPrototype: true },
);

/** `whole` cut at these places. */
function cutUp(whole: Uint8Array, cuts: number[]): Uint8Array[] {
  const places = [0, ...cuts.map((cut) => cut % (whole.length + 1)).toSorted((a, b) => a - b), whole.length];
  return places.slice(1).map((place, index) => whole.subarray(places[index], place));
}

test("what is encoded is decoded, in any chunks", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event), fc.array(fc.nat()), async (events, cuts) => {
      assert.deepEqual(await decode(cutUp(bytes(events.map(encodeEvent).join("")), cuts)), events);
    }),
  );
});

test("any text is read as by a decoder written from the standard, in any chunks", async () => {
  const alphabet = fc.constantFrom("data", "id", ":", " ", "\n", "\r", "\r\n", "x", "✓", "\uFEFF", "event", "\n\n");
  const text = fc.array(alphabet, { maxLength: 40 }).map((parts) => parts.join(""));
  await fc.assert(
    fc.asyncProperty(text, fc.array(fc.nat()), async (text, cuts) => {
      assert.deepEqual(await decode(cutUp(bytes(text), cuts)), byTheStandard(text));
    }),
    { numRuns: 1_000 },
  );
});

/** Slow and plain: the whole text at once. */
function byTheStandard(text: string): ServerSentEvent[] {
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/);
  const events: ServerSentEvent[] = [];
  let data: string[] = [];
  let id: string | undefined;
  for (const line of lines.slice(0, -1)) {
    if (line === "") {
      if (data.length > 0) events.push({ ...(id !== undefined && { id }), data: data.join("\n") });
      data = [];
      id = undefined;
      continue;
    }
    const [, name = "", value = ""] = /^([^:]*)(?::\x20?([^]*))?$/.exec(line) ?? [];
    if (name === "data") data.push(value);
    if (name === "id") id = value;
  }
  return events;
}

test("a line without an end is refused before it fills the memory", async () => {
  await assert.rejects(decode([bytes("data: "), bytes("x".repeat(100))], 50), RangeError);
  assert.equal((await decode([bytes(`data: ${"x".repeat(40)}\n\n`.repeat(10))], 50)).length, 10);
});

test("the source is cancelled when the reader stops, and every arrival is told", async () => {
  let cancelled = false;
  let arrivals = 0;
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes(":\n\n"));
      controller.enqueue(bytes("data: 1\n\n"));
    },
    cancel: () => void (cancelled = true),
  });
  for await (const _ of decodeEvents(source, () => arrivals++)) break;
  assert.deepEqual({ cancelled, arrivals }, { cancelled: true, arrivals: 2 });
});

test("what the source throws is thrown", async () => {
  const source = new ReadableStream<Uint8Array>({ start: (controller) => controller.error(new Error("torn")) });
  await assert.rejects(
    async () => {
      for await (const _ of decodeEvents(source)) assert.fail();
    },
    { message: "torn" },
  );
});
