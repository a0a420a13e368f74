import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Pace } from "./pace.ts";

function held() {
  const source = new Readable({ read() {} }).resume();
  const state = { isOver: false };
  return { source, state, pace: new Pace(source, () => state.isOver) };
}

test("a source waits while many small pieces are not taken, and goes on when all are", async () => {
  const { source, pace } = held();
  for (let piece = 1; piece < 16; piece++) pace.add(false);
  assert.equal(source.isPaused(), false);
  pace.add(false);
  assert.equal(source.isPaused(), true);
  for (let piece = 1; piece < 16; piece++) pace.taken();
  await nextTurn();
  assert.equal(source.isPaused(), true);
  pace.taken();
  assert.equal(source.isPaused(), true); // others have their turn before
  await nextTurn();
  assert.equal(source.isPaused(), false);
});

test("one piece may be enough, and a source that somebody else has is let be", async () => {
  const { source, state, pace } = held();
  pace.add(true);
  assert.equal(source.isPaused(), true);
  pace.taken();
  state.isOver = true;
  await nextTurn();
  assert.equal(source.isPaused(), true);
});
