import assert from "node:assert/strict";
import { test } from "node:test";
import { destinationOf, parsePlace } from "./place.ts";

test("a place is in a sandbox, here, or a standard stream", () => {
  assert.deepEqual(parsePlace("box:/a/b"), { kind: "sandbox", id: "box", path: "/a/b" });
  assert.deepEqual(parsePlace("box:a:b"), { kind: "sandbox", id: "box", path: "a:b" });
  assert.deepEqual(parsePlace("box:"), { kind: "sandbox", id: "box", path: "." });
  assert.deepEqual(parsePlace("-"), { kind: "stream" });
  for (const path of ["a", "./a:b", "/a:b", "../x:y", "a/b:c", ":a"]) {
    assert.deepEqual(parsePlace(path), { kind: "here", path });
  }
});

test("a copy goes where cp puts it", () => {
  const rows: [from: string, to: string, toIsDirectory: boolean, destination: string][] = [
    ["a.txt", "/dir", true, "/dir/a.txt"],
    ["a.txt", "/dir/", true, "/dir/a.txt"],
    ["a.txt", "/new", false, "/new"],
    ["a.txt", "/new/", false, "/new/a.txt"],
    ["x/src", "/dir", true, "/dir/src"],
    ["x/src/", "/dir", true, "/dir/src"],
    ["x/src", "/new", false, "/new"],
    ["x/src/.", "/dir", true, "/dir"],
    [".", "/dir", true, "/dir"],
    ["a.txt", "/", true, "/a.txt"],
    ["/", "/dir", true, "/dir/"],
  ];
  for (const [from, to, isDirectory, destination] of rows) {
    assert.equal(destinationOf(from, to, isDirectory), destination, `${from} -> ${to}`);
  }
});
