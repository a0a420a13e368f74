import assert from "node:assert/strict";
import { test } from "node:test";
import { endpoint, findEndpoint } from "./endpoint.ts";

test("a URL keeps its path, and loses what follows it", () => {
  for (const [given, url] of [
    ["http://127.0.0.1:4730", "http://127.0.0.1:4730"],
    ["http://127.0.0.1:4730/", "http://127.0.0.1:4730"],
    ["https://host.example/atoll/?a#b", "https://host.example/atoll"],
    ["http://[::1]:4730", "http://[::1]:4730"],
  ] as const) {
    assert.equal(endpoint(given, undefined).url, url);
  }
});

for (const url of ["", "127.0.0.1:4730", "ftp://host", "unix:/run/x", "nonsense"]) {
  test(`${JSON.stringify(url)} is no URL of a daemon`, () => {
    assert.throws(() => endpoint(url, undefined), { code: "VALIDATION_FAILED" });
  });
}

test("a token that cannot stand in a header is refused, without being shown", () => {
  for (const token of ["", "a b", "a\nb", "ü"]) {
    assert.throws(() => endpoint("http://h", token), { code: "VALIDATION_FAILED", message: /^Cannot use the token/ });
  }
});

test("what the program says comes before the environment", async () => {
  const found = await findEndpoint({ url: "http://h:1", token: "mine" });
  assert.deepEqual(found, { url: "http://h:1", token: "mine" });
});
