import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { LogEntry } from "../link/log.ts";
import { eventId, type NumberedEvent, parseEventId, toEvents } from "./process-events.ts";

type Piece = { stream: "stdout" | "stderr"; bytes: Uint8Array };

async function eventsOf(pieces: Piece[]): Promise<NumberedEvent[]> {
  async function* log(): AsyncGenerator<LogEntry> {
    let after = 0;
    for (const { stream, bytes } of pieces) yield { type: "output", stream, bytes, after: (after += bytes.length) };
    const end = { exitCode: 0, endedAtMs: 0, durationMs: 1, cpuTimeMs: 1, background: false };
    yield { type: "ended", end, after };
  }
  return Array.fromAsync(toEvents(log(), { run: 7, processId: "p", background: false }));
}

function bytesOf(events: NumberedEvent[], stream: "stdout" | "stderr"): Buffer {
  return Buffer.concat(
    events.flatMap(({ event }) => {
      if (event.type !== stream) return [];
      return [event.bytes === undefined ? Buffer.from(event.data) : Buffer.from(event.bytes, "base64")];
    }),
  );
}

const piece = (stream: "stdout" | "stderr", bytes: string | number[]): Piece => ({
  stream,
  bytes: Buffer.from(bytes as string),
});

test("text that is cut inside a character arrives whole, with ids behind what was sent", async () => {
  const euro = [...Buffer.from("€")];
  const events = await eventsOf([
    piece("stdout", [65, euro[0]!]),
    piece("stdout", [euro[1]!]),
    piece("stdout", [euro[2]!, 66]),
  ]);
  const seen = events.map(({ id, event }) => [id, "data" in event ? event.data : event.type]);
  assert.deepEqual(seen, [
    ["7-1", "A"],
    ["7-5", "€B"],
    ["7-5", "complete"],
  ]);
});

test("a log that stops without an end is caught up, before a character that has only begun", async () => {
  async function* log(): AsyncGenerator<LogEntry> {
    yield { type: "started", started: { id: "p", pid: 1, startedAtMs: 12.5 }, after: 0 };
    yield { type: "output", stream: "stdout", bytes: Buffer.from([65, 0xe2, 0x82]), after: 3 };
  }
  const events = await Array.fromAsync(toEvents(log(), { run: 7, processId: "p", background: true }));
  assert.deepEqual(
    events.map(({ id, event }) => [id, event.type]),
    [
      ["7-0-12", "start"],
      ["7-1-12", "stdout"],
      ["7-1-12", "caught-up"],
    ],
  );
});

test("bytes that are no UTF-8 travel exactly, beside a readable text", async () => {
  const [event] = await eventsOf([piece("stdout", [0xff, 0x41])]);
  assert.deepEqual(event?.event.type === "stdout" && [event.event.data, event.event.bytes], ["\ufffdA", "/0E="]);
});

test("an unfinished character does not wait for the other stream", async () => {
  const events = await eventsOf([piece("stdout", [0xe2, 0x82]), piece("stderr", "x"), piece("stdout", [0xac])]);
  assert.deepEqual(
    events.map(({ id }) => id),
    ["7-2", "7-3", "7-4", "7-4"],
  );
  assert.deepEqual(bytesOf(events, "stdout"), Buffer.from("€"));
});

test("a byte order mark is content", async () => {
  assert.deepEqual(
    bytesOf(await eventsOf([piece("stdout", [0xef, 0xbb, 0xbf, 65])]), "stdout"),
    Buffer.from("\ufeffA"),
  );
});

test("any bytes, cut anywhere, arrive exactly on their stream, and ids never go back", async () => {
  const pieces = fc.array(
    fc.record({
      stream: fc.constantFrom("stdout" as const, "stderr" as const),
      bytes: fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 6 }),
        fc.string({ unit: "grapheme", minLength: 1 }).map((text) => new Uint8Array(Buffer.from(text))),
      ),
    }),
  );
  await fc.assert(
    fc.asyncProperty(pieces, async (given) => {
      const events = await eventsOf(given);
      for (const stream of ["stdout", "stderr"] as const) {
        const sent = Buffer.concat(given.filter((one) => one.stream === stream).map((one) => one.bytes));
        assert.deepEqual(bytesOf(events, stream), sent);
      }
      const offsets = events.map(({ id }) => parseEventId(id)!.offset);
      assert.deepEqual(
        offsets,
        [...offsets].sort((a, b) => a - b),
      );
    }),
  );
});

test("an event id names run, offset and perhaps a life, and nothing else is one", () => {
  for (const place of [
    { run: 3, offset: 1024 },
    { run: 3, offset: 1024, life: 7 },
  ]) {
    assert.deepEqual(parseEventId(eventId(place)), place);
  }
  for (const id of ["", "3", "3-", "-1", "a-1", "3-1-2-3", "3-1-", "3-1.5", "9".repeat(30)])
    assert.equal(parseEventId(id), undefined);
});
