import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { AnswerReader } from "./answer-reader.ts";

type Read = { status: number | undefined; body: string; isComplete: boolean; keepsAlive: boolean; rest: string };

/** Reads what came in these pieces, and with `closed` the end. */
function read(pieces: readonly string[], { method = "GET", closed = false, mayUpgrade = false } = {}): Read {
  const reader = new AnswerReader(method, mayUpgrade);
  const body: Buffer[] = [];
  let rest = "";
  for (const piece of pieces) {
    if (reader.isComplete) rest += piece;
    else body.push(...reader.push(Buffer.from(piece, "latin1")).map((part) => Buffer.from(part)));
  }
  if (closed) reader.finish();
  const { head, isComplete, keepsAlive } = reader;
  const text = Buffer.concat(body).toString("latin1");
  return { status: head?.status, body: text, isComplete, keepsAlive, rest: reader.rest.toString("latin1") + rest };
}

const refused = (text: string, options: Parameters<typeof read>[1] = {}) =>
  assert.throws(() => read([text], options), { code: "SERVICE_NOT_RESPONDING" }, JSON.stringify(text));

const ok = "HTTP/1.1 200 OK\r\n";
const chunked = `${ok}Transfer-Encoding: chunked\r\n\r\n`;

test("a body is as long as its head says, wherever the pieces are cut", () => {
  const answers: [text: string, body: string, keepsAlive: boolean][] = [
    [`${ok}Content-Length: 5\r\n\r\nhello`, "hello", true],
    [`${ok}content-length:0\r\nX:  a b \t\r\n\r\n`, "", true],
    [`${ok}Connection: foo , Close\r\nContent-Length: 2\r\n\r\nhi`, "hi", false],
    ["HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", false],
    ["HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", "hi", true],
    ["HTTP/1.1 204\r\nContent-Length: 9\r\n\r\n", "", true],
    ["HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", true],
    [`${chunked}5\r\nhello\r\n0\r\n\r\n`, "hello", true],
    [`${chunked}0003;name="value"\r\nabc\r\nA \r\n0123456789\r\n0;last\r\nX-Trailer: 1\r\n\r\n`, "abc0123456789", true],
    [`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </>\r\n\r\n${ok}Content-Length: 1\r\n\r\nx`, "x", true],
  ];
  fc.assert(
    fc.property(fc.constantFrom(...answers), fc.array(fc.nat(40), { maxLength: 12 }), ([text, body, keeps], cuts) => {
      const pieces: string[] = [];
      let at = 0;
      for (const length of cuts) pieces.push(text.slice(at, (at += length)));
      pieces.push(text.slice(at));
      const given = read(pieces.filter((piece) => piece !== ""));
      assert.deepEqual([given.body, given.isComplete, given.keepsAlive, given.rest], [body, true, keeps, ""]);
    }),
  );
});

test("without a length the body goes to the end of the connection", () => {
  assert.deepEqual(read([`${ok}\r\nab`, "c"], { closed: true }), {
    ...{ status: 200, body: "abc", isComplete: true, keepsAlive: false, rest: "" },
  });
  for (const cut of ["", "HTTP/1.1 200", `${ok}Content-Length: 3\r\n\r\nab`, `${chunked}3\r\nabc`, `${chunked}0\r\n`]) {
    refused(cut, { closed: true });
  }
});

test("an answer to HEAD has no body", () => {
  const { isComplete, body } = read([`${ok}Content-Length: 5\r\n\r\n`], { method: "HEAD" });
  assert.deepEqual([isComplete, body], [true, ""]);
});

test("what follows an answer is never the next one", () => {
  const { rest, keepsAlive } = read([`${ok}Content-Length: 1\r\n\r\nx${ok}Set-Cookie: evil\r\n\r\n`]);
  assert(rest.startsWith("HTTP/1.1 200") && !keepsAlive);
});

test("another protocol begins behind 101, when it was asked for", () => {
  const text = "HTTP/1.1 101 Switching\r\nUpgrade: raw\r\n\r\nearly";
  const { status, rest } = read([text], { mayUpgrade: true });
  assert.deepEqual([status, rest], [101, "early"]);
  refused(text);
});

test("what could be understood in two ways is refused", () => {
  const heads = [
    ...["Content-Length: 3\r\nContent-Length: 3", "Content-Length: 3\r\nTransfer-Encoding: chunked"],
    ...["Content-Length: 3, 3", "Content-Length: +3", "Content-Length: 0x3", "Content-Length: 3 3", "Content-Length:"],
    ...[
      "Content-Length: 99999999999999999999",
      "Transfer-Encoding: gzip, chunked",
      "Transfer-Encoding: chunked, chunked",
    ],
    ...["Transfer-Encoding: identity", "Transfer-Encoding: xchunked", "Transfer-Encoding: \x0bchunked"],
    ...[
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
      "X: a\r\n folded",
      "X : a",
      "X",
      "No-Colon",
      ": a",
      "X\0: a",
    ],
    ...["X: a\rb", "X: a\nContent-Length: 3", "X: a\0b", "X: \x7f", "\r\nX: a".slice(1), " X: a"],
  ];
  for (const head of heads) refused(`${ok}${head}\r\n\r\nabc`);
  const lines = [
    ...["HTTP/2 200 OK", "HTTP/1.2 200 OK", "http/1.1 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 x"],
    ...["HTTP/1.1  200 OK", " HTTP/1.1 200 OK", "HTTP/1.1 200 a\rb", "ICY 200 OK", "", "HTTP/1.1\t200 OK"],
  ];
  for (const line of lines) refused(`${line}\r\nContent-Length: 0\r\n\r\n`);
  refused("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
});

test("chunks are of one meaning too", () => {
  const bodies = [
    ...[
      "3\nabc\r\n0\r\n\r\n",
      "3\r\nabcd\r\n0\r\n\r\n",
      "3\r\nabc0\r\n\r\n",
      "-3\r\nabc\r\n",
      "0x3\r\nabc\r\n",
      "g\r\n",
    ],
    ...[" 3\r\nabc\r\n", "\r\n3\r\nabc\r\n", "3;a\rb\r\nabc\r\n", "3;a\nb\r\nabc\r\n", "3\r\nabc\n\n0\r\n\r\n"],
    ...["fffffffffffffffff\r\n", "3 3\r\nabc\r\n", "3\r\nabc\r\r\n"],
  ];
  for (const body of bodies) refused(chunked + body);
});

test("nothing is read without an end", () => {
  const endless = (begin: string, more: string) =>
    assert.throws(() => {
      const reader = new AnswerReader("GET");
      reader.push(Buffer.from(begin));
      for (let bytes = 0; bytes < 1 << 20; bytes += more.length) reader.push(Buffer.from(more));
    }, /^SandboxError: Cannot show/);
  endless("HTTP/1.1 200 OK\r\n", "X-More: and more\r\n");
  endless("", "x");
  endless(chunked, "1;x");
  endless(chunked, "1;xxxxxxxx\r\na\r\n");
  endless(`${chunked}0\r\n`, "X: trailer\r\n");
  endless("", "HTTP/1.1 103 Early Hints\r\n\r\n");
});

test("whatever comes, it is an answer or refused", () => {
  const word = fc.constantFrom(
    ok,
    chunked,
    "\r\n",
    "\r\n\r\n",
    "0",
    "3",
    "abc",
    "Content-Length: 3",
    ":",
    " ",
    "\0",
    "\n",
  );
  fc.assert(
    fc.property(fc.array(fc.oneof(word, fc.string({ maxLength: 5 })), { maxLength: 20 }), (pieces) => {
      try {
        read(
          pieces.filter((piece) => piece !== ""),
          { closed: true },
        );
      } catch (error) {
        assert.equal((error as { code?: string }).code, "SERVICE_NOT_RESPONDING");
      }
    }),
    { numRuns: 2_000 },
  );
});
