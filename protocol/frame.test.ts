import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  decodeFrames,
  encodeFrame,
  frameHeaderBytes,
  frameKinds,
  framePayloadLimitBytes,
  type Frame,
} from "./frame.ts";

async function decode(chunks: readonly Uint8Array[]): Promise<Frame[]> {
  async function* source(): AsyncGenerator<Uint8Array> {
    yield* chunks;
  }
  const frames: Frame[] = [];
  for await (const { kind, offset, payload } of decodeFrames(source())) {
    frames.push({ kind, offset, payload: new Uint8Array(payload) });
  }
  return frames;
}

const frame = fc.record(
  {
    kind: fc.constantFrom(...Object.values(frameKinds)),
    offset: fc.maxSafeNat(),
    payload: fc.uint8Array({ maxLength: 50 }).map((payload) => new Uint8Array(payload)),
  },
  { noNullPrototype: true },
);

function join(parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

test("a frame is a header of 16 bytes, little-endian, and its payload", () => {
  const bytes = encodeFrame(frameKinds.stderr, 2 ** 33 + 5, new Uint8Array([7, 8]));
  assert.deepEqual([...bytes], [2, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 7, 8]);
});

test("what is encoded is decoded, in any chunks", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 8 }), fc.array(fc.nat()), async (frames, cuts) => {
      const whole = join(frames.map(({ kind, offset, payload }) => encodeFrame(kind, offset, payload)));
      const places = [0, ...cuts.map((cut) => cut % (whole.length + 1)).toSorted((a, b) => a - b), whole.length];
      const chunks = places.slice(1).map((place, index) => whole.subarray(places[index], place));
      assert.deepEqual(await decode(chunks), frames);
    }),
  );
});

test("a log that ends in the middle of a frame is refused, wherever", async () => {
  const whole = encodeFrame(frameKinds.stdout, 0, new Uint8Array([1, 2, 3]));
  for (let cut = 1; cut < whole.length; cut++) await assert.rejects(decode([whole.subarray(0, cut)]), RangeError);
  assert.deepEqual(await decode([]), []);
});

function header(kind: number, length: number, offset: bigint): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, kind);
  view.setUint32(4, length, true);
  view.setBigUint64(8, offset, true);
  return bytes;
}

const lies: [string, Uint8Array][] = [
  ["an unknown kind", header(3, 0, 0n)],
  ["kind 0", header(0, 0, 0n)],
  ["a length of 4 GiB", header(frameKinds.stdout, 0xffff_ffff, 0n)],
  ["a length just above the limit", header(frameKinds.stdout, framePayloadLimitBytes + 1, 0n)],
  ["an offset that no number holds", header(frameKinds.stdout, 0, 2n ** 53n)],
  ["the largest offset", header(frameKinds.stdout, 0, 2n ** 64n - 1n)],
  ["text", new TextEncoder().encode("HTTP/1.1 200 OK\r\n\r\n")],
];
for (const [what, bytes] of lies) {
  test(`${what} is refused at once, before its payload is waited for`, async () => {
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield bytes;
      assert.fail("more was asked for");
    }
    await assert.rejects(async () => {
      for await (const _ of decodeFrames(endless())) assert.fail("a lie was taken for a frame");
    }, RangeError);
  });
}

test("random bytes are frames or a RangeError, nothing else", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 40 })), async (chunks) => {
      try {
        for (const { payload } of await decode(chunks)) assert(payload.length <= framePayloadLimitBytes);
      } catch (error) {
        assert(error instanceof RangeError);
      }
    }),
  );
});
