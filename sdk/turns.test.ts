import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../test/support/until.ts";
import { Turns } from "./turns.ts";

/** A work that ends when it is told to. */
function work(name: string, log: string[]) {
  let end = () => {};
  const ended = new Promise<void>((resolve) => (end = resolve));
  const run = async () => {
    log.push(`${name} begins`);
    await ended;
    log.push(`${name} ends`);
  };
  return { run, end };
}

test("works of one key are done one after another, of others side by side", async () => {
  const log: string[] = [];
  const turns = new Turns(10);
  const [a1, a2, b] = [work("a1", log), work("a2", log), work("b", log)];
  await turns.take("a", a1.run);
  await turns.take("a", a2.run);
  await turns.take("b", b.run);
  await until("what can begin has", () => log.length === 2);
  assert.deepEqual(log, ["a1 begins", "b begins"]);
  a2.end();
  a1.end();
  await until("the second is done", () => log.length === 5);
  assert.deepEqual(log.slice(2), ["a1 ends", "a2 begins", "a2 ends"]);
});

test("who gives more than there may be waits until one is done", async () => {
  const log: string[] = [];
  const turns = new Turns(2);
  const works = ["a", "b", "c", "d"].map((name) => work(name, log));
  const taken: string[] = [];
  for (const [index, { run }] of works.entries()) {
    void turns.take(String(index), run).then(() => taken.push(String(index)));
  }
  await until("two are taken", () => taken.length === 2);
  works[1]!.end();
  await until("a third is taken", () => taken.length === 3);
  assert.deepEqual(taken, ["0", "1", "2"]);
  for (const { end } of works) end();
  await until("all is done", () => log.length === 8);
});
