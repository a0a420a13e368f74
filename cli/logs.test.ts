import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { lastLines } from "./logs.ts";

test("the last lines are those that tail would show, wherever the output is cut", () => {
  const text = fc.array(fc.constantFrom("a", "b", "\n"), { maxLength: 30 }).map((letters) => letters.join(""));
  fc.assert(
    fc.property(text, fc.array(fc.nat(30)), fc.nat(5), (whole, cuts, count) => {
      const borders = [0, ...cuts.toSorted((a, b) => a - b), whole.length];
      const pieces = borders.slice(1).map((to, index) => ({
        stream: "stdout" as const,
        bytes: Buffer.from(whole.slice(borders[index], to)),
      }));
      const shown = Buffer.concat(lastLines(pieces, count).map(({ bytes }) => bytes)).toString();
      const lines = whole.match(/[^\n]*\n|[^\n]+$/g) ?? [];
      assert.equal(shown, count === 0 ? "" : lines.slice(-count).join(""));
    }),
  );
});
