import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { connect as connectTcp } from "node:net";
import { after, before, test } from "node:test";
import { type Connection, getSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { until } from "../support/until.ts";

// What the standard says of HTTP/1.1, by a visitor who sees the bytes; and every way in which a port is reached.

let daemon: TestDaemon;
let connection: Connection;
let box: Sandbox;
let url: string;
let host: string;

before(async () => {
  daemon = await TestDaemon.start({ env: { ATOLL_PREVIEW_LISTEN: "127.0.0.1:0" } });
  connection = daemon.connect();
  box = await serving("standard");
  url = (await box.exposePort(3000)).url;
  host = new URL(url).host;
});

after(() => daemon[Symbol.asyncDispose]());

async function serving(id: string): Promise<Sandbox> {
  const sandbox = getSandbox(connection, id, { instance: "lite" });
  const fixture = await readFile(new URL("../fixtures/preview/server.mjs", import.meta.url));
  await sandbox.writeFile("/workspace/server.mjs", fixture);
  const server = await sandbox.startProcess("node server.mjs", { restart: "wake" });
  await server.waitForLog(/listening/);
  return sandbox;
}

const head = (line: string, ...headers: string[]) => `${[line, `Host: ${host}`, ...headers].join("\r\n")}\r\n\r\n`;

/** Says these bytes at once, later what `next` makes of the answer so far, and gives all that is answered until the end. */
function say(text: string, next: (answer: string) => string = () => ""): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connectTcp(Number(new URL(url).port), "127.0.0.1", () => socket.write(text, "latin1"));
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      answer += chunk;
      const more = next(answer);
      if (more !== "") socket.write(more, "latin1");
    });
    socket.on("error", reject).on("close", () => resolve(answer));
  });
}

const statusesIn = (answer: string) => [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status));

test("answers without a body have none, and what is asked behind them is answered in its order", async () => {
  const answer = await say(
    head("HEAD /source?bytes=9 HTTP/1.1") +
      head("GET /no-content HTTP/1.1") +
      head("GET /not-modified HTTP/1.1") +
      head("DELETE /echo HTTP/1.1") +
      head("POST /sink HTTP/1.1", "Content-Length: 5") +
      "hello" +
      head("GET /chunked HTTP/1.1") +
      head("GET /echo?last HTTP/1.1", "Connection: close"),
  );
  assert.deepEqual(statusesIn(answer), [200, 204, 304, 200, 200, 200, 200]);
  const [ofHead = "", noContent = "", notModified = "", ...others] = answer.split(/(?=HTTP\/1\.1 \d+)/);
  assert.match(ofHead, /^content-length: 9\r\n[^]*\r\n\r\n$/im);
  assert.match(noContent, /\r\n\r\n$/);
  assert.doesNotMatch(noContent, /^(content-length|transfer-encoding):/im);
  assert.match(notModified, /^etag: "1"\r\n[^]*\r\n\r\n$/im);
  assert.match(others[0] ?? "", /"method":"DELETE"/);
  assert.match(others[1] ?? "", /"size":5/);
  assert.match(others[2] ?? "", /\r\n(7\r\nin two \r\n6\r\npieces|d\r\nin two pieces)\r\n0\r\n\r\n$/);
  assert.match(others[3] ?? "", /"url":"\/echo\?last"/);
});

test("a connection is used again, one request after the other", async () => {
  const answer = await say(head("GET /chunked HTTP/1.1"), (so) => {
    const answers = so.match(/0\r\n\r\n/g)?.length ?? 0;
    if (!so.endsWith("0\r\n\r\n")) return "";
    return answers < 20 ? head("GET /chunked HTTP/1.1") : head("GET /no-content HTTP/1.1", "Connection: close");
  });
  assert.deepEqual(statusesIn(answer), [...Array.from({ length: 20 }, () => 200), 204]);
});

test("a visitor of HTTP/1.0 gets no chunks, and the end of the connection", async () => {
  const answer = await say(head("GET /chunked HTTP/1.0"));
  assert.match(answer, /^HTTP\/1\.1 200 [^]*\r\n\r\nin two pieces$/);
  assert.doesNotMatch(answer, /^transfer-encoding/im);
});

test("who waits to be told to go on is told, and the server need not", async () => {
  const answer = await say(
    head("POST /sink HTTP/1.1", "Content-Length: 5", "Expect: 100-continue", "Connection: close"),
    (so) => (so === "HTTP/1.1 100 Continue\r\n\r\n" ? "hello" : ""),
  );
  assert.deepEqual(statusesIn(answer), [100, 200]);
  assert.match(answer, /"size":5/);
  const other = await say(head("POST /sink HTTP/1.1", "Content-Length: 5", "Expect: more", "Connection: close"));
  assert.deepEqual(statusesIn(other), [417]);
});

test("a server that answers and closes before it has heard all is heard itself", async () => {
  const part = Buffer.alloc(1 << 16);
  const upload = () =>
    new Promise<string>((resolve, reject) => {
      const headers = { host, "content-length": 1 << 30 };
      const asked = httpRequest(`${url}/too-large`, { method: "POST", headers, agent: false });
      let answered = false;
      const more = () => {
        while (!answered && asked.write(part));
        if (!answered) asked.once("drain", more);
      };
      asked.on("error", (error) => answered || reject(error));
      asked.on("response", async (response) => {
        answered = true;
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        asked.destroy();
        resolve(`${response.statusCode} ${Buffer.concat(chunks).toString()}`);
      });
      more();
    });
  for (let times = 0; times < 20; times++) assert.equal(await upload(), "413 enough");
});

test("a request for another protocol behind one that is not answered yet ends that connection alone", async () => {
  const upgrade = head("GET /live HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket");
  for (const first of [head("GET /echo HTTP/1.1"), head("GET /hang HTTP/1.1"), upgrade]) {
    await say(first + upgrade).catch(() => {}); // cut off, by a reset where something is unread
  }
  const stranger = (text: string) => text.replaceAll(host, "3000-x-y.localhost");
  await say(stranger(head("GET /echo HTTP/1.1") + upgrade)).catch(() => {});
  assert.equal((await fetch(`${url}/echo`)).status, 200);
});

test("a connection on which something was sent behind a refused upgrade is closed and given back", async () => {
  const descriptors = async () => (await readdir(`/proc/${daemon.pid}/fd`)).length;
  const before = await descriptors();
  const early = `${head("GET /refused HTTP/1.1", "Connection: Upgrade", "Upgrade: raw")}early`;
  const stranger = early.replaceAll(host, "3000-x-y.localhost");
  const visits = Array.from({ length: 100 }, (_, at) => say(at % 2 ? early : stranger));
  for (const answer of await Promise.all(visits)) assert.match(answer, /^HTTP\/1\.1 (403|404)/);
  await until("all are closed", async () => (await descriptors()) < before + 20);
});

test("headers without an end are refused on both sides, very many of them are not", async () => {
  const many = (count: number) => Array.from({ length: count }, (_, at) => `X-${at}:`);
  const echo = await say(head("GET /echo HTTP/1.1", ...many(900), "Connection: close, X-7", "X-Last: 1"));
  const { rawHeaders } = JSON.parse(/{.*}/.exec(echo)?.[0] ?? "") as { rawHeaders: string[] };
  assert(rawHeaders.includes("X-899") && rawHeaders.includes("X-Last") && !rawHeaders.includes("X-7"));
  // none may be dropped in silence: the last could be the one that says how long the body is
  const hidden = head("POST /sink HTTP/1.1", ...many(1_100), "Transfer-Encoding: chunked");
  assert.deepEqual(statusesIn(await say(`${hidden}5\r\nhello\r\n0\r\n\r\n`)), [431]);
  const bomb = Array.from({ length: 40 }, (_, at) => `X-${at}: ${"x".repeat(1000)}`);
  assert.deepEqual(statusesIn(await say(head("GET /echo HTTP/1.1", ...bomb))), [431]);
  const answer = await say(head("GET /many-headers HTTP/1.1", "Connection: close"));
  assert.equal(answer.match(/^X-\d+: 1\r$/gm)?.length, 5_000);
});

test("answers that come at the same time are not mixed, nor those of visitors who read slowly", async () => {
  const bytes = 8 << 20;
  const visit = async (letter: string, isSlow: boolean) => {
    const response = await fetch(`${url}/source?bytes=${bytes}&of=${letter}`);
    let read = 0;
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      read += chunk.length;
      assert(Buffer.from(chunk).equals(Buffer.alloc(chunk.length, letter)), letter);
      if (isSlow) assert.equal((await fetch(`${url}/whoami`)).status, 200);
    }
    assert.equal(read, bytes);
  };
  await Promise.all([..."abcdefgh"].map((letter, at) => visit(letter, at < 2)));
});

test("what comes at once leaves at once: a body in chunks of one byte is passed on in few", async () => {
  const answer = await say(head("GET /crumbs HTTP/1.1", "Connection: close"));
  assert.equal(answer.match(/x/g)?.length, 100_000);
  // each that waits for its visitor costs some hundred bytes
  assert((answer.match(/\r\nx/g)?.length ?? 0) < 1_000);
});

test("a server that breaks off is a 502 before it has begun, and no whole answer after", async () => {
  assert.equal((await fetch(`${url}/reset`)).status, 502);
  assert.equal((await fetch(`${url}/reset`, { method: "POST", body: "x" })).status, 502);
  await assert.rejects(fetch(`${url}/broken-chunks`).then((response) => response.text()));
  assert.equal(await (await fetch(`${url}/too-long`)).text(), "abc");
});

test("connections to a server are kept for the next visitor, given back after a while, and may end at any time", async () => {
  const source = `
    let connections = 0, open = 0;
    require("node:net").createServer((socket) => {
      connections++, open++;
      let answers = 0;
      socket.on("error", () => {}).on("close", () => open--).on("data", (data) => {
        if (String(data).startsWith("GET /unreliable") && answers++ > 0) return socket.destroy();
        const body = JSON.stringify({ connections, open });
        socket.write("HTTP/1.1 200 OK\\r\\nContent-Length: " + body.length + "\\r\\n\\r\\n" + body);
      });
    }).listen(4200, "127.0.0.1", () => console.log("listening"));`;
  const server = await box.startProcess(`node -e '${source}'`);
  await server.waitForLog(/listening/);
  const { url: at } = await box.exposePort(4200);
  const ask = async (path: string) =>
    (await (await fetch(`${at}${path}`)).json()) as Record<"connections" | "open", number>;
  const before = await ask("/");
  for (let asked = 0; asked < 5; asked++) assert.deepEqual(await ask("/"), before);
  // each second answer is none, but the end of the connection: it is asked for once more, on another
  for (let asked = 1; asked <= 5; asked++) assert.equal((await ask("/unreliable")).open, 1);
  const { connections } = await ask("/");
  assert(connections > before.connections + 2, `${connections} connections`);
  const inside = `node -e 'fetch("http://127.0.0.1:4200/").then(async (answer) => console.log(await answer.text()))'`;
  await until("idle ones are closed", async () => {
    const { stdout } = await box.exec(inside);
    return (JSON.parse(stdout) as { open: number }).open === 1; // the one that asks
  });
});

test("every legal id has a preview of its own", async () => {
  const ids = ["Aa", "aA", "a--b", "3000-a-b", "xn--a", "X".repeat(63), `${"x".repeat(62)}y`, "x".repeat(41)];
  const urls = new Map<string, string>();
  for (const id of ids) {
    const one = await serving(id);
    const exposed = await one.exposePort(3000, { token: "same" });
    for (const place of [exposed.url, exposed.pathUrl!.slice(0, -1)]) {
      assert(new URL(place).hostname.split(".").every((label) => label.length <= 63));
      urls.set(place, id);
    }
  }
  assert.equal(urls.size, 2 * ids.length);
  for (const [place, id] of urls) assert.equal(await (await fetch(`${place}/whoami`)).text(), id);
  for (const id of ids) await getSandbox(connection, id).destroy();
});

test("two sandboxes never have one address", async () => {
  const one = getSandbox(connection, "one");
  await one.exposePort(3000, { token: "two" });
  const other = getSandbox(connection, "one-two");
  await assert.rejects(other.exposePort(3000, { auth: "public" }), { code: "PORT_ALREADY_EXPOSED" });
  await other.exposePort(3001, { auth: "public" });
  await assert.rejects(one.exposePort(3001, { token: "two" }), { code: "PORT_ALREADY_EXPOSED" });
});

test("every way to a port wakes its sandbox and waits for its server", async () => {
  const sleeper = await serving("sleeper");
  const exposed = await sleeper.exposePort(3000);
  const ways = {
    "by name": async () => (await fetch(`${exposed.url}/whoami`)).text(),
    "by path": async () => (await fetch(`${exposed.pathUrl}whoami`)).text(),
    "by a program": async () => (await sleeper.containerFetch("/whoami", 3000)).text(),
    "with a body": async () => {
      const { status } = await fetch(`${exposed.url}/sink`, { method: "POST", body: "hello" });
      return status === 200 ? "sleeper" : `${status}`;
    },
    "by a WebSocket": async () => {
      const socket = new WebSocket(`${exposed.url.replace("http:", "ws:")}/live`);
      await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = () => reject(new Error("it was refused"));
      });
      const answer = new Promise<unknown>((resolve) => (socket.onmessage = ({ data }) => resolve(data)));
      socket.send("sleeper");
      return answer.finally(() => socket.close());
    },
  };
  for (const [way, visit] of Object.entries(ways)) {
    await sleeper.stop();
    assert.equal(await visit(), "sleeper", way);
  }
  assert.equal((await sleeper.info()).run, 1 + Object.keys(ways).length);
});

test("a bearer preview is opened by the API's token alone, also to a WebSocket and by path", async () => {
  const closed = await serving("closed");
  const { url: named, pathUrl } = await closed.exposePort(3000, { auth: "bearer" });
  const upgrade = (authorization?: string) =>
    new Promise<number | undefined>((resolve, reject) => {
      const headers = {
        ...{ host: new URL(named).host, connection: "Upgrade", upgrade: "raw" },
        ...(authorization !== undefined && { authorization }),
      };
      httpRequest(`${named}/raw`, { headers, agent: false })
        .on("response", (response) => resolve(response.resume().statusCode))
        .on("upgrade", (response, socket) => resolve((socket.destroy(), response.statusCode)))
        .on("error", reject)
        .end();
    });
  for (const authorization of [undefined, "Bearer wrong", `Basic ${btoa(`x:${daemon.token}`)}`, daemon.token]) {
    const headers = authorization === undefined ? {} : { authorization };
    for (const place of [`${named}/whoami`, `${pathUrl}whoami`]) {
      const refusal = await fetch(place, { headers });
      assert.deepEqual([refusal.status, refusal.headers.get("www-authenticate")], [401, "Bearer"], authorization);
    }
    assert.equal(await upgrade(authorization), 401, authorization);
  }
  assert.equal(await upgrade(`Bearer ${daemon.token}`), 101);
});
