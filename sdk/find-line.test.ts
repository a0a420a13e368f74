import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { findLine } from "./find-line.ts";

test("a line is found wherever its output is cut", () => {
  const text = "first\r\nLocal: http://localhost:5173/\nlast";
  fc.assert(
    fc.property(fc.array(fc.nat(text.length)), (cuts) => {
      const finder = findLine(/localhost:(\d+)/);
      const borders = [0, ...cuts.toSorted((a, b) => a - b), text.length];
      const pieces = borders.slice(1).map((to, index) => text.slice(borders[index], to));
      const found = pieces.map((data) => finder.add("stdout", { data })).find((match) => match);
      assert.deepEqual([found?.line, found?.match?.[1]], ["Local: http://localhost:5173/", "5173"]);
    }),
  );
});

test("the two streams have lines of their own", () => {
  const finder = findLine("one two");
  assert.equal(finder.add("stdout", { data: "one " }), undefined);
  assert.equal(finder.add("stderr", { data: "two\n" }), undefined);
  assert.equal(finder.add("stdout", { data: "two\n" })?.line, "one two");
});

test("a line without an end is looked at when asked, once until more comes", () => {
  const finder = findLine("login: ");
  assert.equal(finder.hasOpen(), false);
  assert.equal(finder.add("stdout", { data: "login: " }), undefined);
  assert.equal(finder.hasOpen(), true);
  assert.equal(finder.lookAtOpen()?.line, "login: ");
  assert.equal(finder.hasOpen(), false);
  finder.add("stdout", { data: "x" });
  assert.equal(finder.hasOpen(), true);
});

test("colours are ignored, for texts and expressions", () => {
  const data = "\x1b[32mLocal:\x1b[39m http://localhost:\x1b[1m5173\x1b[22m/\n";
  assert.equal(findLine(/localhost:(\d+)/).add("stdout", { data })?.match?.[1], "5173");
  assert.equal(findLine("Local: http").add("stdout", { data })?.line, "Local: http://localhost:5173/");
});

test("an expression with a memory looks at every line anew", () => {
  const finder = findLine(/ready/gy);
  assert.equal(finder.add("stdout", { data: "ready\n" })?.line, "ready");
  assert.equal(finder.add("stdout", { data: "ready\n" })?.line, "ready");
});

test("behind a gap a new line begins", () => {
  const finder = findLine("onetwo");
  finder.add("stdout", { data: "one" });
  finder.gap();
  assert.equal(finder.add("stdout", { data: "two\n" }), undefined);
});

test("the last lines are kept, of both streams, without end", () => {
  const finder = findLine("never");
  for (let i = 0; i < 20; i++) finder.add(i % 2 ? "stderr" : "stdout", { data: `${i}\n` });
  finder.add("stdout", { data: "open" });
  assert.deepEqual(finder.lastLines().slice(-3), ["18", "19", "open"]);
  assert.equal(finder.lastLines().length, 10);
});

test("a text with a line break is refused", () => {
  assert.throws(() => findLine("a\nb"), { code: "VALIDATION_FAILED" });
});
