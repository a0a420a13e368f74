import assert from "node:assert/strict";
import { test } from "node:test";
import { requireSandboxId, SandboxId, SandboxPath, ShortId, UserName } from "./names.ts";

const tables = [
  {
    name: "a sandbox id",
    schema: SandboxId,
    good: ["a", "A", "0", "agent-47", "a--b", "a".repeat(63), "My-Box-1", "localhost1"],
    bad: ["", "-a", "a-", "-", "a_b", "a.b", "a b", "a/b", "..", "ä", "a\n", "a".repeat(64), "localhost", "API", "new"],
  },
  {
    name: "an id of a session or process",
    schema: ShortId,
    good: ["a", "A1", "session-1", "a.b_c-d", "0".repeat(64)],
    bad: ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", "0".repeat(65)],
  },
  {
    name: "a path",
    schema: SandboxPath,
    good: ["/", "a", "/workspace/ä b", "../x", " ", "a\nb", "x".repeat(4095), "ü".repeat(2047)],
    bad: ["", "a\0b", "x".repeat(4096), "ü".repeat(2048)],
  },
  {
    name: "a user",
    schema: UserName,
    good: ["root", "1000", "_apt", "www-data", "a.b"],
    bad: ["", "-x", "a b", "a:b", "a\n", "ä", "x".repeat(33)],
  },
] as const;

for (const { name, schema, good, bad } of tables) {
  for (const text of good) test(`${shown(text)} is ${name}`, () => assert(schema.safeParse(text).success));
  for (const text of bad) test(`${shown(text)} is not ${name}`, () => assert(!schema.safeParse(text).success));
}

function shown(text: string): string {
  return JSON.stringify(text.length > 70 ? `${text.slice(0, 5)}… (${text.length})` : text);
}

test("an illegal id is told with its reason and the remedy, and not in full length", () => {
  assert.throws(
    () => requireSandboxId("x".repeat(5_000)),
    (error: { code: string; message: string; suggestion: string }) =>
      error.code === "INVALID_SANDBOX_ID" && error.message.length < 200 && /agent-47/.test(error.suggestion),
  );
});
