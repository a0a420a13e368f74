import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { test } from "node:test";
import { type ErrorCode, errorTable, SandboxError } from "../protocol/errors.ts";
import { UsageError } from "./args.ts";
import { exitCodeOf } from "./exit-code.ts";

test("an exit code says what to do about the error", () => {
  const rows: [number, ErrorCode[]][] = [
    [1, ["INTERNAL_ERROR", "GIT_CLONE_FAILED", "PROCESS_EXITED_BEFORE_READY"]],
    [2, ["VALIDATION_FAILED", "INVALID_SANDBOX_ID", "INVALID_COMMAND", "INVALID_GIT_URL"]],
    [3, ["SANDBOX_NOT_FOUND", "FILE_NOT_FOUND", "IMAGE_NOT_FOUND", "SESSION_DESTROYED"]],
    [4, ["UNAUTHORIZED", "FORBIDDEN", "NOT_SUPPORTED", "NO_SPACE", "FILE_EXISTS", "IS_DIRECTORY", "VERSION_MISMATCH"]],
    [5, ["SANDBOX_UNAVAILABLE", "CAPACITY_EXCEEDED", "START_TIMEOUT", "LIMIT_REACHED", "RESOURCE_BUSY"]],
  ];
  for (const [exitCode, codes] of rows) {
    for (const code of codes) assert.equal(exitCodeOf(new SandboxError(code, "no")), exitCode, code);
  }
});

test("what may succeed when it is tried again says so, whatever else it is", () => {
  for (const [code, { retryable }] of Object.entries(errorTable)) {
    if (retryable) assert.equal(exitCodeOf(new SandboxError(code as ErrorCode, "no")), 5, code);
  }
});

test("errors that are none of the daemon's have exit codes too", () => {
  assert.equal(exitCodeOf(new UsageError("what?")), 2);
  assert.equal(exitCodeOf(thrownBy(() => statSync("/nothing/there"))), 3);
  assert.equal(exitCodeOf(new TypeError("a bug")), 1);
  assert.equal(exitCodeOf("a text"), 1);
});

function thrownBy(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return assert.fail("nothing was thrown");
}
