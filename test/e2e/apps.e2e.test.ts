import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { type IncomingMessage, request as httpRequest } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { getSandbox, type Sandbox } from "../../sdk/index.ts";
import { App, Client } from "../support/app.ts";
import { TestDaemon } from "../support/daemon.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { until } from "../support/until.ts";

const house = resolve(import.meta.dirname, "../..");
const programs = join(house, "test/fixtures/programs");
const program = join(programs, "app.ts");
const previewServer = join(house, "test/fixtures/preview/server.mjs");

let daemon: TestDaemon;
let app: App;
let box: Sandbox;
let workDir = "";

before(async () => {
  workDir = await mkdtemp(join(tmpdir(), "atoll-apps-"));
  daemon = await TestDaemon.start();
  app = await App.start(daemon, program, { env: { SOME_VARIABLE: "of the environment", Sandbox: "hidden" } });
  box = getSandbox(daemon.connect(), "Box");
  await box.writeFile("/workspace/server.mjs", await readFile(previewServer));
  const server = await box.startProcess("node server.mjs", { processId: "web" });
  await server.waitForLog(/listening/);
});

after(async () => {
  await app[Symbol.asyncDispose]();
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
  await rm(workDir, { recursive: true, force: true });
});

const cancelled = async () => (await (await app.fetch("/cancelled")).json()) as string[];
const later = async () => (await (await app.fetch("/later")).json()) as string[];

/** Where something stands in the program. */
const source = readFile(program, "utf8");
async function lineOf(words: string): Promise<number> {
  const at = (await source).split("\n").findIndex((line) => line.includes(words));
  assert(at >= 0);
  return at + 1;
}

/** What fetch does not let a program send, on a connection of its own. */
async function ask(path: string, headers: Record<string, string>, method = "GET"): Promise<IncomingMessage> {
  const asked = httpRequest(app.url + path, { headers, method, agent: false });
  asked.end();
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  return response;
}

/** Sends bytes as they are, and gives all that comes back. */
async function say(bytes: string): Promise<string> {
  const { hostname, port } = new URL(app.url);
  const socket = connectTcp(Number(port), hostname);
  socket.write(bytes); // whoever ends its side early may miss an answer that takes a while
  return text(socket);
}

test("bindings are the exported classes of sandboxes and come before variables; the daemon's token is not in env", async () => {
  assert.deepEqual(await (await app.fetch("/env")).json(), {
    names: ["Sandbox", "Small"],
    isBinding: true,
    variable: "of the environment",
    inProcess: false,
    main: true,
    evaluations: 1,
  });
  assert.match(app.stderr, /the export "Stranger" is no class of sandboxes/);
  assert.doesNotMatch(app.stderr, /helper/);
  assert.equal(await app.text("/class"), "yes");
});

test("routes answer; what is not there is the app's own answer", async () => {
  const response = await app.fetch("/nothing-here");
  assert.deepEqual([response.status, await response.text()], [404, "Not found; SandboxError"]);
  assert.equal(response.headers.get("content-length"), "23");
  const moved = await app.fetch("/cookies", { redirect: "manual" });
  assert.deepEqual(
    [moved.status, moved.statusText, moved.headers.getSetCookie(), moved.headers.get("location")],
    [302, "Over There", ["a=1; Path=/", "b=2"], "/next"],
  );
  const head = await app.fetch("/env", { method: "HEAD" });
  assert.deepEqual([head.status, await head.text()], [200, ""]);
});

test("a request arrives as it was sent, and can be passed on", async () => {
  const init = { method: "POST", body: "sent", headers: { "x-own": "1", "x-forwarded-host": "as it is" } };
  const seen = (await (await app.fetch("/request?a=%2F&b", init)).json()) as Record<string, never>;
  assert.deepEqual([seen["url"], seen["method"], seen["body"]], [`${app.url}/request?a=%2F&b`, "POST", "sent"]);
  const { "x-own": own, "x-added": added, "x-forwarded-host": forwarded } = seen["headers"]! as Record<string, string>;
  assert.deepEqual([own, added, forwarded], ["1", "1", "as it is"]);
  // Host decides, whatever the target says
  const answer = await say(
    "GET http://evil.example/request?x HTTP/1.1\r\nHost: my.example:81\r\nConnection: close\r\n\r\n",
  );
  assert.match(answer, /"url":"http:\/\/my\.example:81\/request\?x"/);
  assert.match(
    await say("GET //evil.example/request HTTP/1.1\r\nHost: my.example\r\nConnection: close\r\n\r\n"),
    /HTTP\/1.1 404 /,
  );
});

test("what is malformed is refused, and harms nobody else", async () => {
  const rows: [string, RegExp][] = [
    ["nonsense\r\n\r\n", /^HTTP\/1.1 400 /],
    ["GET / HTTP/1.1\r\n\r\n", /^HTTP\/1.1 400 /],
    ["GET / HTTP/1.1\r\nHost: a@b\r\nConnection: close\r\n\r\n", /^HTTP\/1.1 400 [^]*The Host header is malformed/],
    ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", /^HTTP\/1.1 400 [^]*two Host headers/],
    ["GET / HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n", /^HTTP\/1.1 400 /],
    ["TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", /^HTTP\/1.1 405 /],
    [`GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(20_000)}\r\n\r\n`, /^HTTP\/1.1 431 /],
    ["GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", /^HTTP\/1.1 426 /],
    [
      "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
      /^HTTP\/1.1 400 [^]*Sec-WebSocket-Key/,
    ],
    // an offer that nobody takes
    ["GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n", /^HTTP\/1.1 404 /],
  ];
  for (const [bytes, answer] of rows) assert.match(await say(bytes), answer, bytes.slice(0, 80));
  assert.equal((await app.fetch("/env")).status, 200);
});

test("an error is a 500 for the visitor and has its place in the source for the developer", async () => {
  const response = await app.fetch("/throw");
  assert.equal(response.status, 500);
  assert.match(response.headers.get("content-type") ?? "", /^text\/plain/);
  assert.doesNotMatch(await response.text(), /on purpose/);
  await until("it is told", () => app.stderr.includes("Error in GET /throw: Error: on purpose"));
  assert.match(app.stderr, new RegExp(`programs/app\\.ts:${await lineOf('"on purpose"')}:\\d+`));

  assert.equal((await app.fetch("/refuse")).status, 500);
  assert.match(app.stderr, /Error in GET \/refuse: SandboxError: Cannot read .*nowhere[^]*code: 'FILE_NOT_FOUND'/);
  assert.equal((await app.fetch("/nothing")).status, 500);
  assert.match(app.stderr, /Error in GET \/nothing: TypeError: .* the app's fetch gave undefined, not a Response/);
  assert.equal((await app.fetch("/used")).status, 500);
  assert.match(app.stderr, /Error in GET \/used: TypeError/);
  assert.equal((await app.fetch("/unasked")).status, 500);
  assert.match(app.stderr, /Error in GET \/unasked: TypeError: Cannot answer with a WebSocket/);
});

test("a body that breaks off does not pass for a whole one", async () => {
  await assert.rejects(app.text("/breaks"));
  await until("it is told", () => /Error in GET \/breaks: Error: within a body/.test(app.stderr));
});

test("an answer is as long as it says, so that none passes for a part of the next", async () => {
  const head = "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  for (const length of ["3", "100", "none"]) {
    const whole = await say(`GET /said-length?length=${length} ${head}`);
    assert.match(whole, /content-length: 5\r\n[^]*\r\n\r\nabcde$/);
  }
  assert.match(await say(`GET /said-length?streamed&length=5 ${head}`), /abcde$/);
  assert.doesNotMatch(await say(`GET /said-length?streamed&length=3 ${head}`), /abcd/);
  await assert.rejects(app.text("/said-length?streamed&length=100"));
  await until("what is too long is told", () => app.stderr.includes("it exceeds its Content-Length of 3"));
  await until("what is too short is told", () => app.stderr.includes("it has 5 bytes of its Content-Length of 100"));
  assert.equal((await app.fetch("/said-length?streamed&length=none")).status, 500);
});

test("what goes wrong outside of requests is told with its place, and requests go on being served", async () => {
  assert.equal(await app.text("/outside"), "fine");
  for (const [words, title] of [
    ["in a timer", "the app"],
    ["unawaited", "a promise that nobody awaits"],
  ]) {
    await until("it is told", () => app.stderr.includes(`Error in ${title}: Error: ${words}`));
    assert.match(app.stderr, new RegExp(`programs/app\\.ts:${await lineOf(`"${words}"`)}:\\d+`));
  }
  assert.equal((await app.fetch("/env")).status, 200);
});

test("waitUntil goes on behind the answer, and what it rejects with is told", async () => {
  assert.equal(await app.text("/wait-until"), "at once");
  await until("it was done", async () => (await later()).includes("waited"));
  assert.match(app.stderr, /Error in waitUntil of GET \/wait-until: Error: too late/);
});

test("a stream arrives as it is produced: a command's output, while it runs", async () => {
  await box.exec("mkfifo /tmp/fifo");
  const response = await app.fetch("/exec");
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/);
  let seen = "";
  let released: Promise<string> | undefined;
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    seen += chunk;
    if (seen.includes('"data":"one\\n"')) released ??= app.text("/release");
  }
  assert.equal(await released, "done");
  assert.match(seen, /"data":"two\\n"[^]*"type":"complete"[^]*"exitCode":0/);
});

test("a client that goes cancels the stream and aborts the request's signal", async () => {
  for (const path of ["/endless", "/silent"]) {
    const gone = new AbortController();
    const response = await app.fetch(path, { signal: gone.signal });
    if (path === "/endless") assert.equal((await response.body!.getReader().read()).done, false);
    gone.abort();
    await until("the app knows", async () => (await cancelled()).includes(path.slice(1)));
  }
  await until("the signal says so", async () => (await cancelled()).includes("signal"));
});

test("large bodies pass at the pace of the slower side, into a sandbox and out of it too", async () => {
  const mebibyte = 1024 * 1024;
  const before = await app.peakBytes();
  const upload = (path: string, mebibytes: number) => {
    const chunk = new Uint8Array(mebibyte);
    const pull = (controller: ReadableStreamDefaultController) =>
      mebibytes-- > 0 ? controller.enqueue(chunk) : controller.close();
    return app.text(path, { method: "POST", body: new ReadableStream({ pull }), duplex: "half" } as RequestInit);
  };
  const download = async (path: string) => {
    let bytes = 0;
    for await (const chunk of (await app.fetch(path)).body!) bytes += chunk.length;
    return bytes;
  };
  assert.equal(await upload("/count", 256), String(256 * mebibyte));
  assert.equal(await upload("/upload", 128), String(128 * mebibyte));
  assert.equal(await download("/source?mebibytes=256"), 256 * mebibyte);
  assert.equal(await download("/download"), 128 * mebibyte);
  const grown = (await app.peakBytes()) - before;
  assert(grown < 112 * mebibyte, `it grew by ${grown} bytes`);
});

test("what nobody reads of a body does not hold up the connection", async () => {
  const body = new Uint8Array(8 * 1024 * 1024);
  for (let turn = 0; turn < 3; turn++) {
    const response = await app.fetch("/unread", { method: "POST", body });
    assert.deepEqual([response.status, await response.text()], [413, "not wanted"]);
  }
});

test("an app has WebSockets of its own: text, bytes, codes, and what was sent before anybody was there", async () => {
  using client = await new Client(`${app.url}/echo`, ["first", "second"]).opened();
  assert.deepEqual([client.socket.protocol, client.headers["x-from"]], ["second", "the app"]);
  client.socket.send("tëxt");
  client.socket.send(Buffer.from([0, 255, 1]));
  client.socket.send("");
  await until("all came back", () => client.messages.length === 4);
  assert.deepEqual(client.messages, ["welcome", "tëxt", [0, 255, 1], ""]);
  client.socket.send("close");
  await until("it is closed", () => client.closed);
  assert.deepEqual(client.closed, { code: 4001, reason: "as you wish" });

  using other = await new Client(`${app.url}/echo`).opened();
  assert.equal(other.socket.protocol, "");
  other.socket.send("throw");
  await until("it is told", () => app.stderr.includes("Error in the app: Error: within a handler"));
  other.socket.close(4002, "enough");
  await until("the app knows", async () => (await later()).includes("closed 4002 enough true"));
  await until("it is closed", () => other.closed);
  assert.equal(other.closed?.code, 4002);

  using third = await new Client(`${app.url}/echo`).opened();
  third.socket.terminate();
  await until("the app knows", async () => (await later()).some((line) => line === "closed 1006  false"));
});

test("an end of a pair is one visitor's, and what nobody gets is closed", async () => {
  using first = await new Client(`${app.url}/shared`).opened();
  using second = new Client(`${app.url}/shared`);
  await until("it is cut off", () => second.closed);
  assert.match(app.stderr, /Error in GET \/shared: TypeError: Cannot answer with a WebSocket twice/);
  first.socket.send("still mine");
  await until("it came back", () => first.messages.includes("still mine"));

  const closed = async () => (await later()).filter((line) => line === "closed 1006  false").length;
  const before = await closed();
  assert.equal((await app.fetch("/unasked")).status, 500);
  await until("the app's end knows", async () => (await closed()) > before);
});

test("a request that asks for a WebSocket as none can be asked for leaves none open in the sandbox", async () => {
  const open = async () => (await readdir(`/proc/${app.pid}/fd`)).length;
  await app.text("/class"); // connections for other calls are kept
  const before = await open();
  const upgrade = {
    ...{ connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" },
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  };
  for (let turn = 0; turn < 10; turn++) {
    const response = await ask("/terminal", upgrade, "POST");
    assert.equal(response.statusCode, 500);
    response.resume();
  }
  await until("none is open", async () => (await open()) <= before + 2);
});

test("a visitor who floods an app that does not accept is cut off", async () => {
  using client = await new Client(`${app.url}/not-accepted`).opened();
  const message = Buffer.alloc(1024 * 1024);
  for (let count = 0; count < 80; count++) client.socket.send(message);
  await until("it is cut off", () => client.closed);
  assert.equal(client.closed?.code, 1006);
  assert.equal((await app.fetch("/env")).status, 200);
});

test("another answer to a request for a WebSocket is plain HTTP", async () => {
  using refused = new Client(`${app.url}/refused`);
  await until("it is refused", () => refused.refused);
  assert.equal(refused.refused, 403);
  using failed = new Client(`${app.url}/throw`);
  await until("it fails", () => failed.refused);
  assert.equal(failed.refused, 500);
});

test("a terminal is passed on: typing, output, its size, its end", async () => {
  assert.equal((await app.fetch("/terminal")).status, 426);
  using client = await new Client(`${app.url}/terminal`).opened();
  const screen = () => Buffer.from(client.messages.flatMap((it) => (typeof it === "string" ? [] : it))).toString();
  await until("it is ready", () => client.messages.includes('{"type":"ready"}'));
  assert.doesNotMatch(JSON.stringify(client.headers), new RegExp(daemon.token));
  client.socket.send(Buffer.from("stty size; echo $((6*7))\r"));
  await until("it answers", () => /20 90\r\n42\r\n/.test(screen()));
  client.socket.send(JSON.stringify({ type: "resize", cols: 100, rows: 30 }));
  client.socket.send(Buffer.from("stty size\r"));
  await until("it has the new size", () => /30 100\r\n/.test(screen()));
  client.socket.send(Buffer.from("exit 3\r"));
  await until("it is closed", () => client.closed);
  assert.equal(client.closed?.code, 1000);
  assert.equal(client.messages.at(-1), '{"type":"exit","code":3}');
});

test("a WebSocket server in the sandbox is reached, and its refusal too; bytes pass both ways, whatever they are", async () => {
  using client = await new Client(`${app.url}/port?port=3000`).opened();
  client.socket.send("hello");
  await until("it came back", () => client.messages.length > 0);
  assert.deepEqual(client.messages, ["hello"]);
  assert.equal((await app.fetch("/port?port=3000")).status, 426);
  using nobody = new Client(`${app.url}/port?port=3999`);
  await until("it is told", () => nobody.refused);
  assert.equal(nobody.refused, 500);
  assert.match(app.stderr, /Error in GET \/port\?port=3999: SandboxError/);
});

test("a port that is no number leads nowhere, and a server's status that no Response has is told", async () => {
  const asked = await app.fetch(`/any-port?port=${encodeURIComponent("1/../../../../../v1/sandboxes#")}`);
  assert.equal(asked.status, 500);
  assert.match(app.stderr, /Error in GET \/any-port.*: SandboxError: Cannot connect to port "1\//);
  const { url } = await box.exposePort(3000);
  const { host } = new URL(url);
  assert.equal((await ask("/status-999", { host })).statusCode, 500);
  assert.match(app.stderr, /SandboxError: Cannot pass on what the server in the sandbox says: its status is 999/);
});

test("previews by their names: pages and WebSockets; a visitor forges nothing, and never sees the daemon's token", async () => {
  const { url } = await box.exposePort(3000);
  const { host } = new URL(url);
  const forged = {
    host,
    authorization: "Bearer visitors-own",
    "atoll-forwarded-host": "evil",
    "atoll-forwarded-authorization": "evil",
    "x-forwarded-host": "evil",
  };
  const page = await text(await ask("/echo?q", forged));
  const { url: path, rawHeaders } = JSON.parse(page) as { url: string; rawHeaders: string[] };
  assert.equal(path, "/echo?q");
  assert(rawHeaders.includes("Bearer visitors-own"));
  assert.equal(rawHeaders[rawHeaders.indexOf("X-Forwarded-Host") + 1], host);
  assert(!page.includes("evil") && !page.includes(daemon.token), page);

  using client = await new Client(`${app.url}/live`, [], forged).opened();
  client.socket.send("through the app");
  await until("it came back", () => client.messages.length > 0);
  assert.deepEqual(client.messages, ["through the app"]);
  assert(!JSON.stringify(client.headers).includes(daemon.token));
  using refused = new Client(`${app.url}/refused`, [], forged);
  await until("it is refused", () => refused.refused);
  assert.equal(refused.refused, 403);
  using wrong = new Client(`${app.url}/live`, [], { host: host.replace(/^3000/, "3001") });
  await until("it is refused", () => wrong.refused);
  assert.equal(wrong.refused, 404);
});

test("a visitor that goes, and a server that goes, end each other's connection", async () => {
  const { url } = await box.exposePort(3000);
  const { host } = new URL(url);
  const connections = async () => {
    const { stdout } = await box.exec("grep -c ' 0100007F:0BB8 .* 01 ' /proc/net/tcp || true");
    return Number(stdout);
  };
  const clients = [1, 2].map(() => new Client(`${app.url}/live`, [], { host }));
  await Promise.all(clients.map((client) => client.opened()));
  const open = await connections();
  assert(open >= 2);
  clients[0]!.socket.terminate();
  await until("its connection inside has ended", async () => (await connections()) < open);
  clients[1]!.socket.close();
  await until("it is closed", () => clients[1]!.closed);
});

test("the page's program runs as it stands there", async () => {
  const page = await readFile(join(house, "docs/apps.md"), "utf8");
  const file = join(workDir, "page.ts");
  await writeFile(file, /```ts\n([^]*?)```/.exec(page)?.[1] ?? "");
  await using other = await App.start(daemon, file);
  assert.equal(await other.text("/note", { method: "POST", body: "kept" }), "It is being kept\n");
  const agent = getSandbox(daemon.connect(), "agent-47");
  await until("it is kept", async () => (await agent.readFile("/workspace/note")).content === "kept");
  assert.match(await other.text("/test"), /"type":"complete"[^]*"exitCode":\d+/);
  using client = await new Client(`${other.url}/terminal`).opened();
  await until("it is ready", () => client.messages.includes('{"type":"ready"}'));
});

test("the example runs as it is", async () => {
  await using other = await App.start(daemon, join(house, "examples/app.ts"));
  assert.match(await other.text("/anna/run", { method: "POST", body: "echo hello" }), /"data":"hello\\n"/);
  assert.equal((await other.fetch("/anna/files/notes.txt", { method: "PUT", body: "a note" })).status, 204);
  assert.equal(await other.text("/anna/files/notes.txt"), "a note");
  const missing = await other.fetch("/anna/files/nothing");
  assert.equal(missing.status, 404);
  assert.match(await missing.text(), /nothing/);
  using client = await new Client(`${other.url}/anna/terminal`).opened();
  await until("it is ready", () => client.messages.includes('{"type":"ready"}'));
  assert.equal((await other.fetch("/anna", { method: "DELETE" })).status, 204);
});
