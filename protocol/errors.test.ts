import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { errorCodes, errorTable, ErrorBody, SandboxError } from "./errors.ts";

test("every code has a status of its kind, and only what may pass is retryable", () => {
  for (const code of errorCodes) {
    const { status, retryable } = errorTable[code];
    assert.match(code, /^[A-Z]+(_[A-Z]+)*$/);
    assert(status >= 400 && status < 600, code);
    if (retryable) assert([409, 429, 502, 503, 504].includes(status), `${code} is told to be tried again`);
  }
});

test("an error is the same on both sides of the wire", () => {
  for (const code of errorCodes) {
    const sent = new SandboxError(code, "Cannot: why", { details: { a: [1] }, suggestion: "Do", operation: "exec" });
    const received = SandboxError.from(JSON.parse(JSON.stringify(sent)));
    assert.deepEqual(received.toJSON(), sent.toJSON());
    assert.deepEqual([received.httpStatus, received.retryable], [errorTable[code].status, errorTable[code].retryable]);
    assert(ErrorBody.safeParse(sent.toJSON()).success);
  }
});

test("what is absent is not sent", () => {
  assert.deepEqual(new SandboxError("ABORTED", "Cannot").toJSON(), { code: "ABORTED", message: "Cannot" });
});

for (const body of [undefined, null, 7, "x", {}, { code: "NO_SUCH_CODE", message: "x" }, { code: "ABORTED" }]) {
  test(`${JSON.stringify(body)} is no error body, and becomes INTERNAL_ERROR`, () => {
    assert.equal(SandboxError.from(body).code, "INTERNAL_ERROR");
  });
}

test("an error is known by its name, also from another copy of the package, and by its code", () => {
  const error = new SandboxError("NO_SPACE", "Cannot");
  const copy = Object.assign(new Error("Cannot"), { name: "SandboxError", code: "NO_SPACE" });
  for (const one of [error, copy]) {
    assert(SandboxError.is(one));
    assert(SandboxError.is(one, "NO_SPACE"));
    assert(!SandboxError.is(one, "ABORTED"));
  }
  for (const other of [new Error("x"), null, "NO_SPACE", { name: "SandboxError", code: "NO_SPACE" }]) {
    assert(!SandboxError.is(other));
  }
});

test("the cause is kept, but never sent", () => {
  const cause = new Error("secret path");
  const error = new SandboxError("INTERNAL_ERROR", "Cannot", { cause });
  assert.equal(error.cause, cause);
  assert(!JSON.stringify(error).includes("secret"));
});

test("the page for users lists every code with its status, and no other", async () => {
  const page = await readFile(new URL("../docs/errors.md", import.meta.url), "utf8");
  const listed = [...page.matchAll(/^\| `([A-Z_]+)`\s*\| (\d+)\s*\| (yes)?/gm)].map(
    ([, code = "", status, yes]) => [code, Number(status), yes === "yes"] as const,
  );
  assert.deepEqual(
    listed,
    errorCodes.map((code) => [code, errorTable[code].status, errorTable[code].retryable] as const),
  );
});
