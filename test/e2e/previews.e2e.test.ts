import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { type IncomingMessage, request as httpRequest } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Connection, getSandbox, proxyToSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { runProgram } from "../support/program.ts";
import { until } from "../support/until.ts";

let daemon: TestDaemon;
let connection: Connection;
let box: Sandbox;
let url: string;
let pathUrl: string;

before(async () => {
  daemon = await TestDaemon.start({ env: { ATOLL_PREVIEW_LISTEN: "127.0.0.1:0" } });
  connection = daemon.connect();
  box = await serving("Box");
  const exposed = await box.exposePort(3000, { name: "web" });
  url = exposed.url;
  pathUrl = exposed.pathUrl ?? "";
});

after(() => daemon[Symbol.asyncDispose]());

const server = readFile(new URL("../fixtures/preview/server.mjs", import.meta.url));

async function serving(id: string, options: { restart?: "wake"; args?: string } = {}): Promise<Sandbox> {
  const { restart = "never", args = "" } = options;
  const sandbox = getSandbox(connection, id);
  await sandbox.writeFile("/workspace/server.mjs", await server);
  const process = await sandbox.startProcess(`node server.mjs ${args}`, { processId: "web", restart });
  await process.waitForLog(/listening/);
  return sandbox;
}

type Echo = { method: string; url: string; rawHeaders: string[] };
const echoed = async (response: Response) => (await response.json()) as Echo;
const valuesOf = ({ rawHeaders }: Echo, name: string) =>
  rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name);

/** What fetch does not let a program send. */
function ask(target: string, headers: string[], options: { method?: string; body?: string } = {}) {
  return new Promise<{ response: IncomingMessage; text: string }>((resolve, reject) => {
    const { host } = new URL(target);
    const asked = httpRequest(target, {
      headers: ["Host", host, ...headers],
      method: options.method ?? "GET",
      agent: false,
    });
    asked.on("error", reject);
    asked.on("response", async (response) => {
      const chunks: Buffer[] = [];
      try {
        for await (const chunk of response) chunks.push(chunk as Buffer);
      } catch (error) {
        return reject(error as Error);
      }
      resolve({ response, text: Buffer.concat(chunks).toString() });
    });
    asked.end(options.body);
  });
}

test("a port has a URL whose server sees its own address and who visits", async () => {
  const echo = await echoed(await fetch(`${url}/echo?a=%2F&b`));
  assert.equal(echo.url, "/echo?a=%2F&b");
  assert.deepEqual(valuesOf(echo, "host"), ["localhost:3000"]);
  assert.deepEqual(valuesOf(echo, "x-forwarded-host"), [new URL(url).host]);
  assert.deepEqual(valuesOf(echo, "x-forwarded-proto"), ["http"]);
  assert.deepEqual((await box.info()).ports, [{ port: 3000, name: "web", url }]);
  assert.deepEqual(await box.getExposedPorts(), [{ port: 3000, name: "web", url, pathUrl, status: "active" }]);
});

test("the same port again has the same URL; another token or auth is refused", async () => {
  assert.equal((await box.exposePort(3000)).url, url);
  await assert.rejects(box.exposePort(3000, { token: "other" }), { code: "PORT_ALREADY_EXPOSED" });
  await assert.rejects(box.exposePort(3000, { auth: "public" }), { code: "PORT_ALREADY_EXPOSED" });
  for (const port of [80, 0, 65_536, 1.5]) await assert.rejects(box.exposePort(port), { code: "INVALID_PORT" });
  for (const token of ["", "UPPER", "a-b", "x".repeat(17)])
    await assert.rejects(box.exposePort(4000, { token }), { code: "VALIDATION_FAILED" });
});

test("it is reached by path too, on a port of its own that serves nothing else", async () => {
  const echo = await echoed(await fetch(`${pathUrl}echo?x=1`));
  assert.equal(echo.url, "/echo?x=1");
  assert.equal(valuesOf(echo, "x-forwarded-prefix")[0], new URL(pathUrl).pathname.slice(0, -1));
  const bare = await fetch(pathUrl.slice(0, -1), { redirect: "manual" });
  assert.deepEqual([bare.status, bare.headers.get("location")], [308, new URL(pathUrl).pathname]);
  const { origin } = new URL(pathUrl);
  const headers = { authorization: `Bearer ${daemon.token}` };
  for (const path of ["/", "/v1/health", "/v1/sandboxes/Box/ports/3000/http/echo", "/p/", "/p/3000-box-x/"])
    assert.equal((await fetch(origin + path, { headers })).status, 404, path);
});

test("a server on ::1 or on every address is reached as well", async () => {
  for (const [port, address] of [
    [3001, "::1"],
    [3002, "0.0.0.0"],
  ] as const) {
    const process = await box.startProcess(`node server.mjs ${port} ${address}`);
    await process.waitForLog(/listening/);
    assert.equal((await fetch(`${(await box.exposePort(port)).url}/echo`)).status, 200, address);
  }
});

test("no host name is both the API's and a preview's", async () => {
  const authorization = `Bearer ${daemon.token}`;
  const preview = await fetch(`${url}/v1/health`, { headers: { authorization } });
  assert.equal(await preview.text(), "no such page");
  const { host, hostname } = new URL(url);
  const { port } = new URL(daemon.url);
  const api = `http://127.0.0.1:${port}`;
  const statusFor = (target: string, hosts: string[]) =>
    new Promise<string>((resolve, reject) => {
      const socket = connectTcp(Number(port), "127.0.0.1", () => {
        const lines = [
          `GET ${target} HTTP/1.1`,
          ...hosts.map((name) => `Host: ${name}`),
          `Authorization: ${authorization}`,
        ];
        socket.write(`${lines.join("\r\n")}\r\nConnection: close\r\n\r\n`);
      });
      let text = "";
      socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
      socket.on("error", reject);
      socket.on("close", () => resolve(text.split(" ")[1] ?? ""));
    });
  assert.equal(await statusFor("/v1/health", ["127.0.0.1"]), "200");
  assert.equal(await statusFor("/echo", [`${hostname}:9`]), "200");
  assert.equal(await statusFor(`http://${host}/echo`, ["127.0.0.1"]), "400");
  assert.equal(await statusFor(`${api}/v1/health`, [host]), "400");
  assert.equal(await statusFor("/echo", [host, "127.0.0.1"]), "400");
  assert.equal(await statusFor("/v1/health", ["3000-box.evil.test"]), "404");
});

test("a wrong token is a 404 that wakes nothing", async () => {
  const asleep = getSandbox(connection, "asleep");
  const right = await asleep.exposePort(3000, { token: "right_1" });
  assert.match(right.url, /^http:\/\/3000-asleep-right_1\.localhost:/);
  for (const label of ["3000-asleep-wrong", "3000-asleep", "3001-asleep-right_1", "3000-nobody-right_1"]) {
    const response = await fetch(right.url.replace("3000-asleep-right_1", label), { headers: { accept: "text/html" } });
    assert.equal(response.status, 404, label);
    assert.match(await response.text(), /^<!doctype html>/);
  }
  assert.equal((await asleep.info()).state, "none");
  assert.deepEqual(
    [await asleep.validatePortToken(3000, "right_1"), await asleep.validatePortToken(3000, "wrong")],
    [true, false],
  );
});

test("where nothing listens, the page says what does", async () => {
  const { url: empty } = await box.exposePort(4567);
  const response = await fetch(empty);
  assert.equal(response.status, 502);
  assert.match(await response.text(), /port 4567[^]*3000 \(/);
  await box.unexposePort(4567);
});

test("cookies and redirects pass as they are, headers of the connection do not", async () => {
  const redirect = await fetch(`${url}/cookies`, { redirect: "manual" });
  assert.deepEqual([redirect.status, redirect.headers.get("location")], [302, "/next?x=1"]);
  assert.deepEqual(redirect.headers.getSetCookie(), ["a=1; Path=/", "b=2"]);
  const { headers } = await fetch(`${url}/headers`);
  for (const name of ["x-private", "atoll-error"]) assert.equal(headers.get(name), null, name);
  assert.equal(headers.get("service-worker-allowed"), "/");
  assert.equal((await fetch(`${pathUrl}headers`)).headers.get("service-worker-allowed"), null);
});

test("a visitor cannot speak for the system", async () => {
  const forged = ["X-Forwarded-For", "evil", "x_forwarded_host", "evil", "Forwarded", "for=evil", "X-Real-IP", "evil"];
  const hops = ["Connection", "close, X-Forwarded-For, X-Mine", "X-Mine", "evil", "TE", "trailers", "Atoll-X", "evil"];
  const { text } = await ask(`${url}/echo`, [...forged, ...hops, "X-Kept", "kept"]);
  assert(!text.includes("evil") && text.includes("kept"), text);
  assert.match(valuesOf(JSON.parse(text) as Echo, "x-forwarded-for")[0] ?? "", /^(127\.0\.0\.1|::1)$/);
});

test("a body arrives whole however it is framed, and none is none", async () => {
  const sink = async (headers: string[], body?: string) => {
    const { text } = await ask(`${url}/sink`, headers, { method: "POST", ...(body !== undefined && { body }) });
    return (JSON.parse(text) as { size: number }).size;
  };
  assert.equal(await sink(["Content-Length", "5"], "hello"), 5);
  assert.equal(await sink(["Transfer-Encoding", "chunked"], "hello"), 5);
  assert.equal(await sink(["Content-Length", "0"]), 0);
});

test("events arrive when they are sent; who leaves is noticed inside", async () => {
  const leave = new AbortController();
  const response = await fetch(`${url}/events`, { signal: leave.signal });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "data: first\n\n");
  leave.abort();
  await reader.closed.catch(() => {});
  await (await box.getProcess("web"))!.waitForLog("the reader has gone");
});

test("WebSockets pass, other protocols too, each half closed by itself; a refusal is an answer", async () => {
  for (const place of [url, pathUrl.slice(0, -1)]) {
    const socket = new WebSocket(`${place.replace("http:", "ws:")}/live`);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const answer = new Promise((resolve) => (socket.onmessage = ({ data }) => resolve(data)));
    socket.send("hello");
    assert.equal(await answer, "hello");
    socket.close();
  }
  const { host, port } = new URL(url);
  const talk = (path: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connectTcp({ port: Number(port), host: "127.0.0.1", allowHalfOpen: true }, () => {
        socket.end(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nearly bird`);
      });
      let text = "";
      socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
      socket.on("error", reject);
      socket.on("close", () => resolve(text));
    });
  assert.match(await talk("/raw"), /^HTTP\/1\.1 101 [^]*\r\n\r\nyou said early bird$/);
  assert.match(await talk("/refused"), /^HTTP\/1\.1 403 [^]*no/);
  const h2c = await ask(`${url}/echo`, ["Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c"]);
  assert.equal(h2c.response.statusCode, 200);
});

test("a server that lies is cut or told of, and harms nobody", async () => {
  const refused = ["/garbage", "/silence", "/endless-headers", "/endless-interim", "/unasked-upgrade", "/status-000"];
  for (const path of [...refused, "/two-lengths", "/both-framings", "/split", "/folded"]) {
    const response = await fetch(url + path);
    assert.equal(response.status, 502, path);
    await response.text();
  }
  await assert.rejects(ask(`${url}/too-short`, []), { code: "ECONNRESET" });
  assert.equal((await fetch(`${url}/echo`)).status, 200);
});

test("one sandbox's slow server slows nobody else's, and has a limit", async () => {
  const slow = await serving("slow");
  const { url: slowUrl } = await slow.exposePort(3000);
  const leave = new AbortController();
  const { host, port } = new URL(slowUrl);
  const limit = 512;
  const refused: (number | undefined)[] = [];
  for (let i = 0; i < limit + 18; i++) {
    const options = { host: "127.0.0.1", port, path: "/hang", headers: { host }, signal: leave.signal, agent: false };
    const asked = httpRequest(options);
    asked.on("error", () => {});
    asked.on("response", (response) => refused.push(response.resume().statusCode));
    asked.end();
  }
  await until("those beyond the limit are refused", () => refused.length >= 18);
  assert.deepEqual(refused, Array<number>(18).fill(503));
  const refusal = await fetch(`${slowUrl}/echo`);
  assert.equal(refusal.status, 503);
  await refusal.text();
  assert.equal(refusal.headers.get("retry-after"), "2");
  assert.equal((await fetch(`${url}/echo`)).status, 200);
  leave.abort();
  await until("there is room again", async () => (await fetch(`${slowUrl}/echo`)).status === 200);
  await slow.destroy();
});

test("a visit wakes the sandbox and waits for its service; the URL outlives sleep and daemon", async () => {
  const sleeper = await serving("sleeper", { restart: "wake" });
  const { url: kept } = await sleeper.exposePort(3000);
  await sleeper.stop();
  const visits = await Promise.all(Array.from({ length: 5 }, () => fetch(`${kept}/echo`)));
  assert.deepEqual(new Set(visits.map(({ status }) => status)), new Set([200]));
  assert.equal((await sleeper.info()).run, 2);
  await sleeper.stop();
  await daemon.kill("SIGKILL");
  await daemon.up();
  assert.equal((await fetch(`${kept}/echo`)).status, 200);
  await sleeper.destroy();
  assert.equal((await fetch(`${kept}/echo`)).status, 404);
  assert.deepEqual(
    (await connection.listSandboxes()).filter(({ id }) => id === "sleeper"),
    [],
  );
});

/** As long as a visitor is kept waiting: the test after the next one looks. */
let late: Promise<Response>;

test("a service that does not listen is waited for", async () => {
  const never = getSandbox(connection, "never-listens");
  await never.startProcess("sleep 1000", { processId: "web", restart: "wake" });
  await never.stop();
  late = fetch((await never.exposePort(3000)).url, { headers: { accept: "text/html" } });
  late.catch(() => {}); // told below
  await until("it is awake", async () => (await never.info()).state === "running");
});

test("a server that was just started is waited for, and nobody else is", async () => {
  const own = getSandbox(connection, "starting");
  await own.writeFile("/workspace/server.mjs", await server);
  const { url: soon } = await own.exposePort(3000);
  assert.equal((await fetch(soon)).status, 502);
  await own.startProcess("sleep 2; exec node server.mjs");
  assert.equal((await fetch(`${soon}/echo`)).status, 200);
  // what was started listens now, elsewhere
  assert.equal((await fetch((await own.exposePort(3001)).url)).status, 502);
  await own.destroy();
});

test("a forgotten tab does not keep a sandbox awake", async () => {
  const idle = await serving("forgotten");
  const { url: tab } = await idle.exposePort(3000);
  const socket = new WebSocket(`${tab.replace("http:", "ws:")}/live`);
  await new Promise((resolve) => (socket.onopen = resolve));
  const events = await fetch(`${tab}/events`);
  const closed = new Promise((resolve) => (socket.onclose = resolve));
  await idle.setSleepAfter(1);
  await until("it sleeps", async () => (await idle.info()).state === "asleep");
  assert.equal((await idle.info()).lastEnd?.reason, "idle");
  await closed;
  await assert.rejects(events.text());
});

test("a service that does not listen in time is a page that looks again", async () => {
  const response = await late;
  assert.deepEqual([response.status, response.headers.get("retry-after")], [503, "2"]);
  assert.match(await response.text(), /http-equiv="refresh"/);
});

test("a URL that is taken back is a 404, and who is connected is cut", async () => {
  const { url: taken } = await box.exposePort(3001);
  await box.startProcess("node server.mjs 3003");
  const exposed = await box.exposePort(3003);
  const open = await until("it answers", async () => {
    const response = await fetch(`${exposed.url}/events`);
    return response.status === 200 && response;
  });
  assert.equal(await box.isPortExposed(3003), true);
  await box.unexposePort(3003);
  await assert.rejects(open.text());
  assert.equal((await fetch(`${exposed.url}/echo`)).status, 404);
  assert.equal(await box.isPortExposed(3003), false);
  await assert.rejects(box.unexposePort(3003), { code: "PORT_NOT_EXPOSED" });
  assert.equal((await fetch(`${taken}/echo`)).status, 200);
});

test("a preview can want the API's token, which stays outside, or nothing", async () => {
  const closed = getSandbox(connection, "closed");
  await serving("closed");
  const { url: own } = await closed.exposePort(3000, { auth: "bearer" });
  assert.equal((await fetch(`${own}/echo`)).status, 401);
  const response = await fetch(`${own}/echo`, { headers: { authorization: `Bearer ${daemon.token}` } });
  assert(!(await response.text()).includes(daemon.token));
  assert.equal(response.status, 200);
  await closed.unexposePort(3000);
  const { url: open } = await closed.exposePort(3000, { auth: "public" });
  assert.match(open, /\/\/3000-closed\.localhost/);
  const passed = await echoed(await fetch(`${open}/echo`, { headers: { authorization: "Basic eDp5" } }));
  assert.deepEqual(valuesOf(passed, "authorization"), ["Basic eDp5"]);
});

test("programs reach any port without a URL, apps pass visitors on", async () => {
  const direct = await box.containerFetch("/sink", { method: "POST", body: "hello" }, 3000);
  assert.equal(((await direct.json()) as { size: number }).size, 5);
  await assert.rejects(box.containerFetch("/", 4568), { code: "SERVICE_NOT_RESPONDING" });
  const { hostname } = new URL(url);
  const visit = new Request(`https://${hostname.replace("localhost", "example.com")}/echo`, {
    headers: { authorization: "Basic eDp5", "x-forwarded-for": "evil" },
  });
  const echo = await echoed((await proxyToSandbox(visit, { Sandbox: connection }))!);
  assert.deepEqual(valuesOf(echo, "x-forwarded-host"), [hostname.replace("localhost", "example.com")]);
  assert.deepEqual(valuesOf(echo, "x-forwarded-proto"), ["https"]);
  assert.deepEqual(valuesOf(echo, "authorization"), ["Basic eDp5"]);
  assert(!JSON.stringify(echo).includes("evil") && !JSON.stringify(echo).includes(daemon.token));
  assert.equal(await proxyToSandbox(new Request("https://example.com/echo"), { Sandbox: connection }), null);
  const anonymous = await fetch(`${daemon.url}/v1/sandboxes/Box/ports/3000/http/echo`);
  assert.equal(anonymous.status, 401);
  const unasked = await box.wsConnect(new Request("https://example.com/live"), 3000);
  assert.equal(unasked.status, 426);
});

test("what a program streams to a port is not kept, and a redirect is given as it is", async () => {
  const redirect = await box.containerFetch("/cookies", { method: "POST", body: "x" }, 3000);
  assert.deepEqual([redirect.status, redirect.headers.get("location")], [302, "/next?x=1"]);
  assert.deepEqual(redirect.headers.getSetCookie(), ["a=1; Path=/", "b=2"]);
  assert.equal(redirect.headers.get("atoll-status"), null);
  const [chunks, chunkBytes] = [1_024, 1 << 20];
  const before = process.memoryUsage().arrayBuffers;
  let [sent, peak] = [0, 0];
  const body = new ReadableStream<Uint8Array>({
    pull(sink) {
      peak = Math.max(peak, process.memoryUsage().arrayBuffers - before);
      if (sent++ < chunks) sink.enqueue(new Uint8Array(chunkBytes));
      else sink.close();
    },
  });
  const init = { method: "POST", body, duplex: "half" };
  const answer = await box.containerFetch("/sink", init as RequestInit, 3000);
  assert.equal(((await answer.json()) as { size: number }).size, chunks * chunkBytes);
  assert(peak < (chunks * chunkBytes) / 4, `${peak} bytes were held`);
});

function atoll(...args: string[]) {
  const env = { ...process.env, ATOLL_URL: daemon.url, ATOLL_TOKEN: daemon.token, NO_COLOR: "1" };
  return runProgram(process.execPath, [join(import.meta.dirname, "../../cli/main.ts"), ...args], { env });
}

test("the command line gives, lists and takes back URLs", async () => {
  assert.match((await atoll("port", "nobody")).stderr, /Cannot find sandbox "nobody"/);
  const given = (await atoll("port", "cli", "3000", "--url-token", "mine", "--name", "web")).stdout;
  assert.match(given, /^http:\/\/3000-cli-mine\.localhost:\d+\n$/);
  assert.match((await atoll("port", "cli")).stdout, /^PORT .*\n3000 +web +http:\/\/3000-cli-mine/);
  assert.equal((await atoll("port", "cli", "3000", "--remove")).code, 0);
  assert.equal((await atoll("port", "cli", "3000", "--remove")).code, 3);
  assert.equal((await atoll("port", "cli", "3000", "--auth", "nobody")).code, 2);
  assert.equal((await atoll("port", "cli", "80")).code, 2);
});

test("the page's program runs as it stands there", async () => {
  const page = await readFile(join(import.meta.dirname, "../../docs/previews.md"), "utf8");
  const dir = await mkdtemp(join(tmpdir(), "atoll-page-"));
  try {
    await writeFile(join(dir, "program.ts"), /```ts\n([^]*?)```/.exec(page)?.[1] ?? "");
    const { code, stdout, stderr } = await atoll("run", join(dir, "program.ts"));
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^http:\/\/8000-preview-[a-z2-7]{16}\.localhost:\d+ <h1>hello<\/h1>\n$/);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("the example runs as it is", async () => {
  const { code, stdout, stderr } = await atoll("run", join(import.meta.dirname, "../../examples/preview.ts"));
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  const label = String.raw`3000-example-preview-[a-z2-7]{16}`;
  const hello = "hello, visitor 1\n";
  assert.match(stdout, new RegExp(`^http://${label}\\.localhost:\\d+\n${hello}asleep: true\n${hello}$`));
});
