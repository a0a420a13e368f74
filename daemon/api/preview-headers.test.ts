import assert from "node:assert/strict";
import { test } from "node:test";
import { toInner, toVisitor } from "./preview-headers.ts";

const visitor = { host: "3000-box-t.localhost:7465", proto: "http", address: "192.0.2.1" };
const inner = (...raw: string[]) => {
  const flat = toInner(raw, 3000, visitor);
  return Object.fromEntries(flat.flatMap((name, at) => (at % 2 === 0 ? [[name.toLowerCase(), flat[at + 1]]] : [])));
};

test("the inner server sees its own address and who visits", () => {
  assert.deepEqual(inner("Host", "3000-box-t.localhost:7465", "Accept", "*/*"), {
    host: "localhost:3000",
    accept: "*/*",
    "x-forwarded-host": "3000-box-t.localhost:7465",
    "x-forwarded-proto": "http",
    "x-forwarded-for": "192.0.2.1",
  });
});

test("what the system says cannot be said by a visitor, in any spelling, nor taken away", () => {
  const forged = [
    ...["X-Forwarded-For", "evil", "x_forwarded_for", "evil", "X-Forwarded_Host", "evil", "Forwarded", "for=evil"],
    ...["X-Real-IP", "evil", "Atoll-Anything", "evil", "X-Forwarded-Prefix", "/evil", "Host", "evil"],
    ...["Connection", "close, X-Forwarded-For, Host"],
  ];
  const seen = inner(...forged);
  assert(!JSON.stringify(seen).includes("evil"));
  assert.deepEqual([seen["host"], seen["x-forwarded-for"]], ["localhost:3000", "192.0.2.1"]);
});

test("what is true of one connection stays on it, with what its Connection header names", () => {
  const seen = inner(
    ...["Connection", "keep-alive, X-Secret", "connection", "x-other", "X-Secret", "1", "X-Other", "2", "X-Kept", "3"],
    ...["Keep-Alive", "timeout=5", "TE", "trailers", "Trailer", "x", "Upgrade", "h2c", "Proxy-Authorization", "x"],
    ...["Close", "x"],
  );
  assert.deepEqual(Object.keys(seen).sort(), [
    ...["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept"],
  ]);
});

test("ever so many names cost no more than they are long", () => {
  const options = Array.from({ length: 300_000 }, () => "aa").join(",");
  const headers = Array.from({ length: 300_000 }, () => ["bb", ""]).flat();
  // one by one it would take minutes
  assert.equal(toVisitor(["Connection", options, ...headers], 200, false).length, headers.length);
});

test("a body is framed as it came, whatever else is said", () => {
  assert.equal(inner("Content-Length", "5", "Connection", "content-length")["content-length"], "5");
  const chunked = inner("Transfer-Encoding", "chunked");
  assert.deepEqual([chunked["transfer-encoding"], chunked["content-length"]], ["chunked", undefined]);
});

test("cookies and redirects pass as they are, in their order", () => {
  const raw = ["Set-Cookie", "a=1; Path=/", "Location", "/next", "Set-Cookie", "b=2", "Connection", "close"];
  assert.deepEqual(toVisitor(raw, 302, false), raw.slice(0, 6));
});

test("a server cannot speak for the system, nor a page for its neighbours", () => {
  assert.deepEqual(toVisitor(["Atoll-Error", "X", "Service-Worker-Allowed", "/"], 200, true), []);
  assert.deepEqual(toVisitor(["Service-Worker-Allowed", "/"], 200, false), ["Service-Worker-Allowed", "/"]);
  assert.deepEqual(toVisitor(["Content-Length", "5"], 204, false), []);
});
