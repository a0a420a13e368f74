import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { bytesToBase64, joinBytes, textToBytes } from "./bytes.ts";
import { bytesOutput, textOutput, type Output, type Piece } from "./output.ts";

const unlimited = Number.MAX_SAFE_INTEGER;

function collect<T extends { length: number }>(output: Output<T>, pieces: Piece[]): { value: T; heard: T[] } {
  const heard = pieces.map((piece) => output.add(piece));
  heard.push(output.end());
  return { value: output.value(), heard: heard.filter((part) => part.length > 0) };
}

function asBytes(bytes: Uint8Array): Piece {
  return { data: "�", bytes: bytesToBase64(bytes) };
}

test("text stays as it is, a byte order mark too", () => {
  const { value, heard } = collect(textOutput(unlimited), [{ data: "\uFEFFa" }, { data: "ü✓" }]);
  assert.equal(value, "\uFEFFaü✓");
  assert.deepEqual(heard, ["\uFEFFa", "ü✓"]);
});

test("a character that is cut between two pieces of bytes is whole again", () => {
  const bytes = textToBytes("a✓b");
  const { value, heard } = collect(textOutput(unlimited), [asBytes(bytes.subarray(0, 2)), asBytes(bytes.subarray(2))]);
  assert.equal(value, "a✓b");
  assert.deepEqual(heard, ["a", "✓b"]);
});

test("half a character before text, and at the end, becomes U+FFFD, and callbacks hear of it", () => {
  const half = asBytes(textToBytes("✓").subarray(0, 2));
  const { value, heard } = collect(textOutput(unlimited), [half, { data: "text" }, half]);
  assert.equal(value, "\uFFFDtext\uFFFD");
  assert.deepEqual(heard, ["\uFFFDtext", "\uFFFD"]);
});

test("any bytes, cut anywhere, are what one decoder makes of them, and exactly themselves as bytes", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 6 }), { maxLength: 8 }), (parts) => {
      const pieces = parts.map(asBytes);
      const whole = joinBytes(parts);
      const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(whole);
      const decoded = collect(textOutput(unlimited), pieces);
      assert.equal(decoded.value, text);
      assert.equal(decoded.heard.join(""), text);
      assert.deepEqual(collect(bytesOutput(unlimited), pieces).value, whole);
    }),
  );
});

for (const [limit, kept, truncated] of [
  [0, "", true],
  [1, "a", true],
  [3, "a", true],
  [4, "a✓", true],
  [5, "a✓b", false],
  [6, "a✓b", false],
] as const) {
  test(`of 5 bytes, a limit of ${limit} keeps ${JSON.stringify(kept)}, never half a character`, () => {
    for (const pieces of [[{ data: "a✓b" }], [{ data: "a" }, { data: "✓" }, { data: "b" }]]) {
      const output = textOutput(limit);
      const { heard } = collect(output, pieces);
      assert.equal(output.value(), kept);
      assert.equal(output.truncated(), truncated);
      assert.equal(heard.join(""), "a✓b");
    }
  });
}

test("nothing that comes after the limit is kept, although it would fit", () => {
  const output = textOutput(3);
  collect(output, [{ data: "ab" }, { data: "✓" }, { data: "c" }]);
  assert.equal(output.value(), "ab");
});

test("bytes are kept up to the limit exactly", () => {
  const output = bytesOutput(4);
  const { heard } = collect(output, [{ data: "abc" }, asBytes(new Uint8Array([255, 254, 253]))]);
  assert.deepEqual(output.value(), new Uint8Array([97, 98, 99, 255]));
  assert(output.truncated());
  assert.equal(joinBytes(heard).length, 6);
});
