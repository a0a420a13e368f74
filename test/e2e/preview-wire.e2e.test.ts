import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { connect as connectTcp } from "node:net";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { type Connection, getSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { until } from "../support/until.ts";

// What goes over the wire of a preview: bytes that could be understood in two ways, very many bytes, bytes that mean nothing.

let daemon: TestDaemon;
let connection: Connection;

before(async () => {
  daemon = await TestDaemon.start();
  connection = daemon.connect();
});

after(() => daemon[Symbol.asyncDispose]());

/** A sandbox with this fixture as its server, and the URL of its port. */
async function serving(id: string, fixture: string, ...args: string[]): Promise<{ box: Sandbox; url: string }> {
  const box = getSandbox(connection, id);
  const path = `/workspace/${fixture}`;
  await box.writeFile(path, await readFile(new URL(`../fixtures/preview/${fixture}`, import.meta.url)));
  const server = await box.startProcess(["node", path, ...args].join(" "));
  await server.waitForLog(/listening/);
  return { box, url: (await box.exposePort(Number(args[0] ?? 3000))).url };
}

/** Says these bytes, and gives all that is answered until the end. */
function say(url: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connectTcp(Number(new URL(url).port), "127.0.0.1", () => socket.write(text, "latin1"));
    socket.setEncoding("latin1").on("data", (chunk: string) => (answer += chunk));
    socket.on("error", reject).on("close", () => resolve(answer));
  });
}

test("a visitor's request is one request to the server, however it is written", async () => {
  const { box, url } = await serving("recorder", "recorder.mjs");
  const { host } = new URL(url);
  const evil = "GET /evil HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const post = (head: string, body = "") => `POST /good HTTP/1.1\r\nHost: ${host}\r\n${head}\r\n\r\n${body}`;
  const sized = `Content-Length: ${evil.length}`;
  const refused = {
    "two framings": post(`${sized}\r\nTransfer-Encoding: chunked`, `0\r\n\r\n${evil}`),
    "two lengths": post(`Content-Length: 0\r\n${sized}`, evil),
    "a list of lengths": post(`Content-Length: 0, ${evil.length}`, evil),
    "a length with a sign": post(`Content-Length: +${evil.length}`, evil),
    "an encoding that is none": post("Transfer-Encoding: xchunked", `0\r\n\r\n${evil}`),
    "chunked, but not last": post("Transfer-Encoding: chunked, identity", `0\r\n\r\n${evil}`),
    "an encoding behind a control": post("Transfer-Encoding: \x0bchunked", `0\r\n\r\n${evil}`),
    "a space before the colon": post(`Content-Length : ${evil.length}`, evil),
    "a bare LF in a header": post(`X: a\nContent-Length: ${evil.length}`, evil),
    "a bare CR in a header": post(`X: a\rContent-Length: ${evil.length}`, evil),
    "a NUL": post("X: a\0b"),
    "a bare LF behind a chunk's size": post("Transfer-Encoding: chunked", `0\n\r\n${evil}`),
    "a bare LF in a chunk's extension": post("Transfer-Encoding: chunked", `1;a\nb\r\nx\r\n0\r\n\r\n`),
    "a chunk longer than its size": post("Transfer-Encoding: chunked", `1\r\nxyz\r\n0\r\n\r\n`),
    "a size that overflows": post("Transfer-Encoding: chunked", `fffffffffffffffff1\r\nx\r\n0\r\n\r\n`),
  };
  for (const [what, text] of Object.entries(refused)) {
    const answer = await say(url, text);
    assert.doesNotMatch(answer, /HTTP\/1\.1 [^4]/, `${what}: ${answer}`);
    assert(!(await seen(box)).includes("/evil"), what);
  }
  const closing = "Connection: close";
  const passed = {
    "a folded header": post(`X: a\r\n Content-Length: 999\r\n${closing}`),
    "a length that Connection names": post(`Connection: close, content-length\r\n${sized}`, evil),
    "a chunk's extension": post(`Transfer-Encoding: chunked\r\n${closing}`, `1;a="b"\r\nx\r\n0\r\n\r\n`),
    "trailers that are headers": post(
      `Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n${closing}`,
      `1\r\nx\r\n0\r\nContent-Length: 999\r\n\r\n`,
    ),
    "a WebSocket with a body": post(`Upgrade: websocket\r\nConnection: Upgrade, close\r\n${sized}`, evil),
    "one that is not answered as wished": `GET /good HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n${evil}`,
  };
  for (const [at, [what, text]] of Object.entries(passed).entries()) {
    // a path for each: the last bytes of the one before may still come
    const answer = await say(url, text.replace("/good", `/good${at}`));
    if (answer.startsWith("HTTP/1.1 400")) continue; // refused is as good
    const bytes = await seen(box, `good${at}`, "evil", "nonsense");
    const heads = bytes.split("HTTP/1.1\r\n").length - 1 - (text.includes(sized) && bytes.includes(evil) ? 1 : 0);
    assert.equal(heads, 1, `${what}: ${bytes}`);
    const [head = "", ...body] = bytes.split("\r\n\r\n");
    const framings = head.match(/^(content-length|transfer-encoding):.*$/gim) ?? [];
    assert.equal(framings.length, 1 - Number(text.startsWith("GET")), `${what}: ${head}`);
    if (body.join("").includes("/evil")) assert.match(framings[0] ?? "", new RegExp(`: ${evil.length}$`), what);
    assert(!head.includes("999") || /^x: a.*999/im.test(head), `${what}: ${head}`);
  }
});

/** What the recorder was sent on connections that began with one of these requests; with none, on all. */
async function seen(box: Sandbox, ...names: string[]): Promise<string> {
  const among = names.length > 0 ? names.map((name) => `-name ${name}`).join(" -o ") : "-true";
  return (await box.exec(`find /tmp/seen -type f \\( ${among} \\) -exec cat {} +`)).stdout;
}

test("interim answers, trailers and what a server says behind its answer stay inside", async () => {
  const { url } = await serving("wire", "server.mjs");
  assert.equal(await (await fetch(`${url}/interim`)).text(), "done");
  const { host } = new URL(url);
  const trailers = await say(
    url,
    `GET /trailers HTTP/1.1\r\nHost: ${host}\r\nTE: trailers\r\nConnection: close\r\n\r\n`,
  );
  assert.match(trailers, /4\r\nbody\r\n0\r\n\r\n$/);
  assert.doesNotMatch(trailers, /trailer/i);
  for (let times = 0; times < 10; times++) {
    assert.equal(await (await fetch(`${url}/two-answers`)).text(), "one");
    assert.match(await (await fetch(`${url}/echo`)).text(), /"url":"\/echo"/);
  }
  // where its head came alone, that has left already: then the answer is cut off
  const read = async () => {
    const response = await fetch(`${url}/chunk-extension`);
    await response.text();
    return response.status;
  };
  assert((await read().catch(() => 502)) === 502);
  assert.equal((await fetch(`${url}/echo`)).status, 200);
});

for (const [how, port, address] of [
  ["on the loopback", 3001, "127.0.0.1"],
  ["where only the agent reaches it", 3002, "127.0.0.2"],
] as const) {
  test(`a gigabyte goes both ways, exact and in constant memory, to a server ${how}`, async () => {
    const { box, url } = await serving("large", "server.mjs", `${port}`, address);
    const bytes = 1024 * 1024 * 1024;
    const part = Buffer.alloc(1 << 20, "atoll");
    const residentMiB = (status: string) => Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
    const look = async () => ({
      daemon: residentMiB(await readFile(`/proc/${daemon.pid}/status`, "utf8")),
      agent: residentMiB((await box.exec("cat", ["/proc/1/status"])).stdout),
    });
    const before = await look();
    const most = { ...before };
    let parts = 0;
    const watch = async () => {
      if (parts++ % 64 > 0) return;
      const now = await look();
      for (const who of ["daemon", "agent"] as const) most[who] = Math.max(most[who], now[who]);
    };
    const expected = createHash("sha256");
    for (let at = 0; at < bytes; at += part.length) expected.update(part);
    const hash = expected.digest("hex");

    const down = createHash("sha256");
    let left = 0;
    for await (const chunk of (await fetch(`${url}/source?bytes=${bytes}`)).body as AsyncIterable<Uint8Array>) {
      down.update(chunk);
      if ((left += chunk.length) > 1 << 20) await watch();
      left %= 1 << 20;
    }
    assert.equal(down.digest("hex"), hash);
    async function* upload() {
      for (let at = 0; at < bytes; at += part.length) {
        yield part;
        await watch();
      }
    }
    const body = Readable.toWeb(Readable.from(upload())) as unknown as BodyInit;
    const up = await fetch(`${url}/sink`, { method: "PUT", body, duplex: "half" } as RequestInit);
    assert.deepEqual(await up.json(), { size: bytes, hash });
    // the daemon's buffers stay until its next collection
    assert(most.daemon - before.daemon < 128, `the daemon took ${most.daemon - before.daemon} MiB more`);
    assert(most.agent - before.agent < 16, `the agent took ${most.agent - before.agent} MiB more`);
  });
}

test("signs of life of a forgotten tab do not keep its sandbox awake", async () => {
  const { box, url } = await serving("forgotten", "server.mjs");
  await box.setSleepAfter(6);
  const events = await fetch(`${url}/heartbeat`);
  const socket = new WebSocket(`${url.replace("http:", "ws:")}/live`);
  await new Promise((resolve) => (socket.onopen = resolve));
  let pings = 0;
  const timer = setInterval(() => socket.readyState === WebSocket.OPEN && (socket.send("ping"), pings++), 2_100);
  // asking for its state is no use of it
  await until("it sleeps", async () => (await box.info()).state === "asleep", 60_000);
  clearInterval(timer);
  await assert.rejects(events.text());
  assert.equal((await box.info()).lastEnd?.reason, "idle");
  assert(pings >= 2, "it was pinged all the time");
});
