import assert from "node:assert/strict";
import { test } from "node:test";
import { SandboxError } from "../protocol/errors.ts";
import { UsageError } from "./args.ts";
import { tell } from "./tell.ts";

/** What is told to a program. */
function told(thrown: unknown): { code: string; message: string; details?: { stack?: string } } {
  const { write } = process.stderr;
  let text = "";
  process.stderr.write = (said: string | Uint8Array) => Boolean((text += String(said)));
  try {
    tell(thrown, true);
  } finally {
    process.stderr.write = write;
  }
  return (JSON.parse(text) as { error: ReturnType<typeof told> }).error;
}

test("whatever was thrown is one of the table's errors for a program", () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), {
    ...{ code: "ENOSPC", syscall: "open", path: "/tmp/file" },
  });
  assert.equal(told(new SandboxError("RESOURCE_BUSY", "Cannot")).code, "RESOURCE_BUSY");
  assert.equal(told(new UsageError("Cannot follow")).code, "VALIDATION_FAILED");
  assert.deepEqual(told(full), { code: "NO_SPACE", message: 'Cannot open "/tmp/file": no space left on device' });
  const ofBug = told(new TypeError("x is not a function"));
  assert.deepEqual([ofBug.code, ofBug.message], ["INTERNAL_ERROR", "Cannot go on: x is not a function"]);
  assert.match(ofBug.details?.stack ?? "", /tell\.test\.ts/);
  assert.equal(told("words").message, "words");
});
