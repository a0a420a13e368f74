import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { base64ToBytes, bytesToBase64 } from "./bytes.ts";

test("bytes survive base64, also where they are a part of a larger buffer", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(20), (bytes, skip) => {
      const part = bytes.subarray(Math.min(skip, bytes.length));
      assert.equal(bytesToBase64(part), Buffer.from(part).toString("base64"));
      assert.deepEqual(base64ToBytes(bytesToBase64(part)), new Uint8Array(part));
    }),
  );
});
