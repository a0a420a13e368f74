import assert from "node:assert/strict";
import { test } from "node:test";
import { verbPath, verbs, type VerbName, type VerbShape } from "./verbs.ts";

const all = Object.entries(verbs) as [VerbName, VerbShape][];

test("no two verbs share a method and a path", () => {
  const places = all.map(([, { method, path }]) => `${method} ${path.replace(/:[a-z]+/g, ":")}`);
  assert.deepEqual(
    places.filter((place, index) => places.indexOf(place) !== index),
    [],
  );
});

test("no path with a parameter hides a fixed one of the same method", () => {
  for (const [name, one] of all) {
    for (const [other, two] of all) {
      if (name === other || one.method !== two.method) continue;
      const [left, right] = [one.path.split("/"), two.path.split("/")];
      const clash =
        left.length === right.length &&
        left.every((part, index) => part === right[index] || part.startsWith(":") || right[index]?.startsWith(":"));
      assert(!clash, `${name} and ${other} answer the same paths`);
    }
  }
});

for (const [name, verb] of all) {
  test(`${name}: the path's parameters are those of the schema`, () => {
    const inPath = [...verb.path.matchAll(/:([a-z]+)/g)].map(([, parameter = ""]) => parameter);
    assert.deepEqual(inPath.toSorted(), Object.keys(verb.params.shape).toSorted());
    assert.match(verb.path, /^\/v1\//);
  });

  test(`${name}: a verb that needs a sandbox names one, and one that only reads is a GET`, () => {
    assert.equal(verb.needs !== "none", "sandbox" in verb.params.shape);
    if (verb.method === "GET") assert.equal(verb.body, undefined);
    assert.match(verb.summary, /^[A-Z].*[^.]$/);
  });

  test(`${name}: unknown parameters and options are refused, never ignored`, () => {
    assert.equal(verb.query.safeParse({ nonsense: "1" }).success, false);
    if (verb.body === undefined || verb.body === "bytes") return;
    const refused = verb.body.safeParse({ nonsense: 1 });
    assert(!refused.success && refused.error.issues.some(({ code }) => code === "unrecognized_keys"));
  });
}

test("a path's parameters cannot leave their place", () => {
  assert.equal(verbPath("info", { sandbox: "a/../b?c#d" }), "/v1/sandboxes/a%2F..%2Fb%3Fc%23d");
  assert.equal(verbPath("getProcess", { sandbox: "box", process: "p1" }), "/v1/sandboxes/box/processes/p1");
});

test("a parameter never leads to another verb", () => {
  assert.equal(verbPath("stopProcess", { sandbox: "a", process: "x/../y?#" }).split("/").length, 7);
  for (const process of [".", ".."])
    assert.throws(
      () => verbPath("stopProcess", { sandbox: "a", process }),
      /Cannot use "\.+": it is no name of a process/,
    );
});
