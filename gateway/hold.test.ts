import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "node:test";
import { createHold } from "./hold.ts";

test("every byte comes out once and in order, however adding, taking and releasing alternate", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("add" as const), bytes: fc.uint8Array({ minLength: 1, maxLength: 50 }) }),
    fc.record({ kind: fc.constant("take" as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
    fc.record({ kind: fc.constant("release" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const hold = createHold();
      const into: Buffer[] = [];
      const out: Buffer[] = [];
      for (const step of steps) {
        if (step.kind === "add") {
          into.push(Buffer.from(step.bytes));
          hold.add(Buffer.from(step.bytes));
        } else if (step.kind === "take") out.push(Buffer.from(hold.take(Math.floor(step.part * hold.size))));
        else out.push(Buffer.from(hold.release()));
      }
      out.push(Buffer.from(hold.take(hold.size)));
      assert.deepEqual(Buffer.concat(out), Buffer.concat(into));
    }),
  );
});
