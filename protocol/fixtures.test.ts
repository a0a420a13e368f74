import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Readable } from "node:stream";
import { test } from "node:test";
import * as agent from "./agent.ts";
import * as live from "./agent-live.ts";
import { ErrorBody } from "./errors.ts";
import { decodeFrames, encodeFrame } from "./frame.ts";
import { examples, fixturesFile, fixturesText, frames, inputFrames } from "./fixtures/make.ts";

type Schema = { parse(value: unknown): unknown };
const link = { ...agent, ...live };
const schemas: Record<string, unknown> = { ...link, ErrorBody };

test("every example is whole by its schema", () => {
  for (const [name, values] of Object.entries(examples)) {
    for (const value of values) assert.deepEqual((schemas[name] as Schema).parse(value), value, name);
  }
});

test("every message of the link has an example", () => {
  const parts = new Set(["SignalName", "ProcessCommand"]); // parts of other messages
  const missing = Object.entries(link)
    .filter(([name, value]) => typeof value === "object" && "parse" in value && !examples[name] && !parts.has(name))
    .map(([name]) => name);
  assert.deepEqual(missing, []);
});

test("every frame is read as it was written", async () => {
  for (const frame of frames) {
    const bytes = Buffer.from(frame.bytes, "base64");
    const read = await Array.fromAsync(decodeFrames(Readable.from([bytes])));
    assert.deepEqual(
      read.map(({ kind, offset, payload }) => ({ kind, offset, payload: Buffer.from(payload).toString("base64") })),
      [{ kind: frame.kind, offset: frame.offset, payload: frame.payload }],
    );
  }
});

test("frames to the agent are written like those from it, and are none of its own", async () => {
  for (const { kind, payload, bytes } of inputFrames) {
    assert.equal(Buffer.from(encodeFrame(kind, 0, Buffer.from(payload, "base64"))).toString("base64"), bytes);
    await assert.rejects(Array.fromAsync(decodeFrames(Readable.from([Buffer.from(bytes, "base64")]))), RangeError);
  }
});

test("link.json is what make.ts makes: `node protocol/fixtures/make.ts` writes it again", () => {
  assert.equal(readFileSync(fixturesFile, "utf8"), fixturesText());
});
