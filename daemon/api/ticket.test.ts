import assert from "node:assert/strict";
import { test } from "node:test";
import { SandboxError } from "../../protocol/errors.ts";
import { Tickets } from "./ticket.ts";

const wanted = { sandbox: "box", terminal: "main", origin: "https://app.example.com" };
const refused = (error: unknown) => SandboxError.is(error, "UNAUTHORIZED");

test("a ticket opens one terminal of its sandbox, once", () => {
  const tickets = new Tickets();
  const { ticket } = tickets.give({ sandbox: "box", terminal: undefined, origin: undefined });
  tickets.take(ticket, wanted);
  assert.throws(() => tickets.take(ticket, wanted), refused);
  assert.throws(() => tickets.take("guessed", wanted), refused);
});

test("a ticket is good for 60 s", () => {
  const tickets = new Tickets();
  const admission = { sandbox: "box", terminal: undefined, origin: undefined };
  const { ticket, expiresAt } = tickets.give(admission, 1_000);
  assert.equal(expiresAt, 61_000);
  tickets.take(ticket, wanted, 60_999);
  const { ticket: late } = tickets.give(admission, 1_000);
  assert.throws(() => tickets.take(late, wanted, 61_000), refused);
});

for (const [what, admission] of [
  ["another sandbox", { sandbox: "other", terminal: undefined, origin: undefined }],
  ["another terminal", { sandbox: "box", terminal: "other", origin: undefined }],
  ["pages of another origin", { sandbox: "box", terminal: undefined, origin: "https://evil.example.com" }],
] as const) {
  test(`a ticket for ${what} is refused, and used up`, () => {
    const tickets = new Tickets();
    const { ticket } = tickets.give(admission);
    assert.throws(() => tickets.take(ticket, wanted), refused);
    const right = { ...wanted, sandbox: admission.sandbox, terminal: "other", origin: admission.origin };
    assert.throws(() => tickets.take(ticket, right), refused);
  });
}

test("ten thousand unused tickets are the most, until they are old", () => {
  const tickets = new Tickets();
  const admission = { sandbox: "box", terminal: undefined, origin: undefined };
  for (let count = 0; count < 10_000; count++) tickets.give(admission, 0);
  assert.throws(
    () => tickets.give(admission, 1),
    (error) => SandboxError.is(error, "LIMIT_REACHED"),
  );
  tickets.give(admission, 60_000);
});
