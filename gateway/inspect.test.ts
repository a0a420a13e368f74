import assert from "node:assert/strict";
import fc from "fast-check";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { connect } from "node:tls";
import { createInspector } from "./inspect.ts";

const host = "good.example";

type Outcome = { passed: string; refusal?: string; protocol: string | undefined; held: number };

/** Sends the parts one after the other and tells what came of it. */
function inspect(parts: readonly (string | Buffer)[], { trusted = false, release = false } = {}): Outcome {
  const inspector = createInspector(host, trusted);
  const passed: Buffer[] = [];
  for (const part of parts) {
    const step = inspector.take(Buffer.from(part as string, "latin1"));
    passed.push(step.forward);
    if (step.refusal !== undefined)
      return { passed: text(passed), refusal: step.refusal, protocol: inspector.protocol, held: inspector.heldBytes };
    if (release) passed.push(inspector.release());
  }
  return { passed: text(passed), protocol: inspector.protocol, held: inspector.heldBytes };
}

const text = (parts: Buffer[]) => Buffer.concat(parts).toString("latin1");
const bytewise = (whole: string | Buffer) =>
  [...Buffer.from(whole as string, "latin1")].map((byte) => Buffer.from([byte]));
/** Whole, byte by byte, and byte by byte with everything held released in between: the verdict must be the same. */
const ways = (whole: string | Buffer): Outcome[] => [
  inspect([whole]),
  inspect(bytewise(whole)),
  inspect(bytewise(whole), { release: true }),
];

const passes = (whole: string | Buffer) => {
  for (const outcome of ways(whole)) {
    assert.equal(outcome.refusal, undefined, String(whole));
    assert.equal(outcome.passed, Buffer.from(whole as string, "latin1").toString("latin1"));
  }
};
const refuses = (whole: string | Buffer, why: RegExp) => {
  for (const outcome of ways(whole)) assert.match(outcome.refusal ?? "(passed)", why, JSON.stringify(String(whole)));
};

const get = (headers: string, line = "GET / HTTP/1.1") => `${line}\r\n${headers}\r\n\r\n`;
const good = get("Host: good.example");
const evil = get("Host: evil.example");

test("64 KiB cost little to read and go on as one piece, whatever they are", () => {
  const size = 64_000;
  const posted = get("Host: good.example\r\nTransfer-Encoding: chunked", "POST /x HTTP/1.1");
  const filled = (line: string) => line.repeat(size / line.length);
  const costly = {
    "headers of one name": get(`Host: good.example\r\n${filled("a:\r\n")}`),
    "blanks in a header": get(`Host: good.example\r\na: a${filled(" ")}b`),
    "blanks in a request line": `GET /${filled(" ")}x\r\n`,
    "the smallest chunks": `${posted}${filled("1\r\na\r\n")}`,
    trailers: `${posted}0\r\n${filled("a\r\n")}`,
    requests: filled(good),
    "records of one byte of a hello": Buffer.concat([
      Buffer.from([0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xff]),
      ...Array.from({ length: size / 6 }, () => Buffer.from([0x16, 3, 1, 0, 1, 0])),
    ]),
  };
  for (const [what, whole] of Object.entries(costly)) {
    const began = process.cpuUsage();
    const { refusal } = inspect([whole]);
    const { user, system } = process.cpuUsage(began);
    assert.equal(refusal, undefined, what);
    assert.ok(user + system < 500_000, `${what}: ${(user + system) / 1000} ms`);
  }
});

test("requests that name the host pass byte for byte", () => {
  passes(good);
  passes(good.repeat(3));
  passes(`\r\n\r\n${good}`);
  passes(get("hOsT:\tGood.Example.:8080 "));
  passes(get("Host: good.example", "GET http://good.example:80/x HTTP/1.1"));
  passes(get("Host: good.example", "OPTIONS * HTTP/1.1"));
  passes("GET / HTTP/1.0\r\n\r\n");
  passes(`${get("Host: good.example\r\nContent-Length: 5", "POST /x HTTP/1.1")}evil\n${good}`);
  passes(`${get("Host: good.example\r\nContent-Length: 0", "POST /x HTTP/1.1")}${good}`);
  const chunked = get("Host: good.example\r\nTransfer-Encoding: chunked", "PUT /x HTTP/1.1");
  passes(`${chunked}5\r\nhello\r\nA;x="y"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n${good}`);
});

test("a request for another host is refused, also as the second of a connection", () => {
  refuses(evil, /its request is for "evil.example"/);
  refuses(good + evil, /evil/);
  refuses(`${get("Host: good.example\r\nContent-Length: 3", "POST / HTTP/1.1")}abc${evil}`, /evil/);
  refuses(
    `${get("Host: good.example\r\nTransfer-Encoding: chunked", "POST / HTTP/1.1")}1\r\na\r\n0\r\n\r\n${evil}`,
    /evil/,
  );
  refuses(get("Host: good.example", "GET http://evil.example/ HTTP/1.1"), /evil/);
  refuses(get("Host: good.example", "CONNECT evil.example:443 HTTP/1.1"), /evil/);
  refuses(get("Host: good.example@evil.example"), /evil/);
  refuses(get("Host: evil.example:80:90"), /evil/);
  refuses(get("Host:"), /its request is for ""/);
  refuses(get("Host: 127.0.0.1"), /127/);
});

test("a request that can be read in two ways is refused", () => {
  // Python's http.server takes what is between blanks.
  for (const blank of [" ", "\t", "\r\n ", "\v"]) refuses(blank + evil, /request line that is none/);
  refuses(get("Host: good.example\r\nHost: good.example"), /two Host headers/);
  refuses(get("Host: good.example\r\n folded"), /header line/);
  refuses(get("Host : good.example"), /header line/);
  refuses(get("Host: good.example\rX: y"), /CRLF/);
  refuses(get("Host: good.example\0"), /header line/);
  refuses("GET / HTTP/1.1\nHost: good.example\n\n", /CRLF/);
  refuses(get("Host: good.example\r\nContent-Length: 5\r\nContent-Length: 6"), /two lengths/);
  refuses(get("Host: good.example\r\nContent-Length: +5"), /two lengths/);
  refuses(get("Host: good.example\r\nContent-Length: 5, 5"), /two lengths/);
  refuses(get("Host: good.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"), /two lengths/);
  refuses(get("Host: good.example\r\nTransfer-Encoding: chunked", "POST / HTTP/1.0"), /two lengths/);
  refuses(get("Host: good.example\r\nTransfer-Encoding: gzip, chunked"), /transfer encoding/);
  refuses(get("Host: good.example", "get  /  http/1.1"), /request line/);
  const chunked = get("Host: good.example\r\nTransfer-Encoding: chunked", "POST / HTTP/1.1");
  for (const size of ["0x5", "-1", "", " 5", "5\n", "f".repeat(17)])
    refuses(`${chunked}${size}\r\nhello`, /chunk|CRLF/);
  refuses(`${chunked}5\r\nhelloX\r\n`, /chunk of two lengths/);
  refuses(`${good}not http at all\r\n\r\n`, /request line/);
});

test("after an upgrade other bytes pass, but a request is a request", () => {
  const upgrade = get("Host: good.example\r\nConnection: Upgrade\r\nUpgrade: websocket");
  passes(`${upgrade}\x81\x85\x01\x02\x03\x04hello${evil}`);
  refuses(upgrade + evil, /evil/);
  refuses(upgrade + good + evil, /evil/);
  refuses(`${get("Host: good.example\r\nUpgrade: h2c")}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, /HTTP\/2/);
});

test("HTTP/2 in the clear is only for servers that the owner named", () => {
  const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
  refuses(preface, /HTTP\/2 without TLS/);
  assert.equal(inspect([preface], { trusted: true }).passed, preface);
});

test("protocols that are neither HTTP nor TLS pass as soon as that is clear", () => {
  for (const first of [
    "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "EHLO me\r\n",
    "a1 LOGIN x y\r\n",
    "NICK x\r\n",
    "get key\r\n",
  ])
    passes(first);
  passes(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
  passes(Buffer.from([0x16, 0x04, 1, 2, 3]));
  passes('{"jsonrpc": "2.0"}');
  passes("*1\r\n$4\r\nPING\r\n");
});

test("half a line is held, and released on demand without being forgotten", () => {
  assert.deepEqual(inspect(["PING"]), { passed: "", protocol: undefined, held: 4 });
  assert.equal(inspect(["PING"], { release: true }).passed, "PING");
  const split = inspect(["GET / HT", "TP/1.1\r\nHost: ev", "il.example\r\n\r\n"], { release: true });
  assert.match(split.refusal!, /evil/);
});

test("no more than 64 KiB are held: an endless head is refused, an endless line watched", () => {
  const piece = "x".repeat(1024);
  const endless = (start: string) => inspect([start, ...Array.from({ length: 80 }, () => piece)]);
  assert.match(endless("GET / HTTP/1.1\r\nHost: good.example\r\nX: ").refusal!, /does not end/);
  for (const start of ["", "GET /"]) {
    assert.equal(endless(start).passed, start + piece.repeat(80), "a long line of another protocol passes");
    const request = [start, piece.repeat(100), " HT", "TP/1.1 ", "\r\nHost: evil.example\r\n\r\n"];
    assert.match(inspect(request).refusal ?? "", /does not end/, "unless it becomes a request");
    const other = [start, piece.repeat(100), "\nHost: evil.example\r\n"];
    assert.equal(inspect(other).passed, other.join(""));
  }
});

test("64 KiB byte by byte cost no more than a few copies", () => {
  const inspector = createInspector(host, false);
  const bytes = Buffer.from(`GET / HTTP/1.1\r\nHost: good.example\r\nX: ${"y".repeat(60_000)}`);
  let largest = 0;
  for (const byte of bytes) {
    inspector.take(Buffer.from([byte]));
    largest = Math.max(largest, inspector.heldBytes);
  }
  assert.equal(largest, bytes.length);
});

const hello = async (servername?: string): Promise<Buffer> => {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const socket = new Duplex({ read() {}, write: (chunk: Buffer, _encoding, done) => (resolve(chunk), done()) });
  const client = connect({ socket, ...(servername !== undefined && { servername }) });
  client.on("error", () => {});
  const bytes = await promise;
  client.destroy();
  return bytes;
};
/** The same handshake bytes in records of `size`. */
const inRecords = (record: Buffer, size: number): Buffer => {
  const body = record.subarray(5);
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size);
    parts.push(Buffer.from([0x16, 3, 1, part.length >> 8, part.length & 255]), part);
  }
  return Buffer.concat(parts);
};
const ccs = Buffer.from([0x14, 3, 3, 0, 1, 1]);
const data = Buffer.from([0x17, 3, 3, 0, 3, 1, 2, 3]);

test("a TLS hello passes when it names the host or nobody", async () => {
  passes(await hello("good.example"));
  passes(await hello("GOOD.example"));
  passes(await hello());
  for (const size of [1, 2, 3, 50, 200]) passes(inRecords(await hello("good.example"), size));
});

test("a TLS hello for another host is refused, however it is cut", async () => {
  const bytes = await hello("evil.example");
  refuses(bytes, /its TLS server name is "evil.example"/);
  for (const size of [1, 2, 5, 100]) refuses(inRecords(bytes, size), /evil/);
  assert.equal(inspect([bytes]).protocol, "tls");
  assert.equal(inspect(bytewise(bytes)).passed, "", "nothing of it reaches the server");
});

test("a second hello is judged like the first; encrypted bytes are not", async () => {
  const first = await hello("good.example");
  const second = await hello("evil.example");
  refuses(Buffer.concat([first, second]), /evil/);
  refuses(Buffer.concat([first, ccs, second]), /evil/);
  refuses(Buffer.concat([first, ccs, inRecords(second, 1)]), /evil/);
  passes(Buffer.concat([first, ccs, await hello("good.example"), ccs, data, second]));
  passes(Buffer.concat([first, data, second]));
  const finished = Buffer.concat([Buffer.from([0x16, 3, 3, 0, 40]), Buffer.alloc(40, 7)]);
  passes(Buffer.concat([first, ccs, finished, data]));
});

test("TLS that begins otherwise or cannot be read is refused", async () => {
  const bytes = await hello("good.example");
  const warning = Buffer.from([0x15, 3, 1, 0, 2, 1, 0]);
  for (const start of [warning, ccs, data, Buffer.from([0x16, 3, 1, 0, 0])])
    refuses(Buffer.concat([start, bytes]), /./);
  const cut = Buffer.from(bytes);
  cut.writeUIntBE(cut.length - 9 - 10, 6, 3);
  refuses(cut, /behind its ClientHello|cannot be read/);
  const longer = Buffer.from(bytes);
  longer[5 + 4 + 2 + 32] = 255;
  refuses(longer, /cannot be read/);
  refuses(Buffer.concat([bytes.subarray(0, 3), Buffer.from([0, 3, 2, 0, 0])]), /./);
});

test("any bytes in any cut give the same verdict as in one piece, and nothing is lost or doubled", async () => {
  const hellos = [await hello("good.example"), await hello("evil.example"), await hello()];
  const piece = fc.oneof(
    fc.constantFrom(
      good,
      evil,
      "\r\n",
      "0\r\n\r\n",
      get("Host: good.example\r\nTransfer-Encoding: chunked"),
      "5\r\nabcde\r\n",
    ),
    fc.constantFrom(...hellos, ccs, data).map((bytes) => bytes.toString("latin1")),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  );
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 6 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 40 })),
      (pieces, sizes) => {
        const whole = pieces.join("");
        const parts: string[] = [];
        for (let at = 0; at < whole.length;) {
          const size = sizes.next().value as number;
          parts.push(whole.slice(at, at + size));
          at += size;
        }
        const one = inspect([whole]);
        for (const outcome of [inspect(parts), inspect(parts, { release: true })]) {
          assert.equal(outcome.refusal, one.refusal);
          assert.ok(whole.startsWith(outcome.passed));
          if (one.refusal === undefined) assert.ok(outcome.passed.length >= one.passed.length);
        }
      },
    ),
    { numRuns: 500 },
  );
});
