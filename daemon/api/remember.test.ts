import assert from "node:assert/strict";
import { test } from "node:test";
import { remember } from "./remember.ts";

test("what comes again is looked up, and little is kept of what does not", () => {
  const asked: string[] = [];
  const upper = remember(2, 4, (text) => {
    asked.push(text);
    return text.toUpperCase();
  });
  for (const text of ["a", "a", "long text", "long text", "b", "a", "c", "a"])
    assert.equal(upper(text), text.toUpperCase());
  // "c" found two there and let them go
  assert.deepEqual(asked, ["a", "long text", "long text", "b", "c", "a"]);
});
