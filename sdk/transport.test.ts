import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import { SandboxError } from "../protocol/errors.ts";
import { wireVersion } from "../protocol/version.ts";
import { event, events, json, scriptedServer } from "../test/support/scripted-server.ts";
import { until } from "../test/support/until.ts";
import type { Patience } from "./outage.ts";
import { createTransport } from "./transport.ts";

const quick: Patience = { silenceMs: 150, giveUpMs: 1_500, firstContactMs: 300 };
const at = "2026-01-01T00:00:00.000Z";
const start = { type: "start", timestamp: at, pid: 7, processId: "p1" };
const out = (data: string) => ({ type: "stdout", timestamp: at, data });
const end = { exitCode: 0, endedAtMs: 1, durationMs: 1, cpuTimeMs: 1, background: false, success: true };
const complete = { type: "complete", timestamp: at, exitCode: 0, result: end };
const exec = { params: { sandbox: "box" }, body: { processId: "p1", argv: ["true"] } };

function transportTo(url: string, token?: string) {
  return createTransport(() => Promise.resolve({ url, ...(token !== undefined && { token }) }), quick);
}

async function read(url: string, options = {}): Promise<string> {
  let text = "";
  for await (const { event } of transportTo(url).events("exec", exec, options)) {
    text += event.type === "stdout" ? event.data : `<${event.type}>`;
  }
  return text;
}

test("a call carries the token, the path and the JSON, and returns the answer", async () => {
  await using server = await scriptedServer([json({ id: "box" })]);
  const transport = transportTo(server.url, "secret");
  const answer = await transport.json("configure", { params: { sandbox: "box" }, body: { image: "base" } });
  assert.deepEqual(answer, { id: "box" });
  const [seen] = server.seen;
  assert.equal(`${seen?.method} ${seen?.path} ${seen?.body}`, 'PUT /v1/sandboxes/box {"image":"base"}');
  assert.equal(seen?.headers.authorization, "Bearer secret");
  assert.equal(seen?.headers["atoll-wire"], String(wireVersion));
});

test("what the daemon refuses is the SandboxError it sent, with the verb", async () => {
  const body = { code: "SANDBOX_NOT_FOUND", message: "Cannot find it: no", details: { a: 1 }, suggestion: "Look" };
  await using server = await scriptedServer([json(body, 404)]);
  await assert.rejects(transportTo(server.url).json("info", { params: { sandbox: "box" } }), (error: unknown) => {
    assert(SandboxError.is(error, "SANDBOX_NOT_FOUND"));
    const { message, details, suggestion, operation, httpStatus, retryable } = error;
    assert.deepEqual(
      { message, details, suggestion, operation, httpStatus, retryable },
      {
        message: "Cannot find it: no",
        details: { a: 1 },
        suggestion: "Look",
        operation: "info",
        httpStatus: 404,
        retryable: false,
      },
    );
    return true;
  });
  assert.equal(server.seen.length, 1);
});

test("the daemon's own 503 is not taken for a proxy's", async () => {
  await using server = await scriptedServer([json({ code: "CAPACITY_EXCEEDED", message: "Cannot start: full" }, 503)]);
  await assert.rejects(transportTo(server.url).json("info", { params: { sandbox: "box" } }), {
    code: "CAPACITY_EXCEEDED",
  });
  assert.equal(server.seen.length, 1);
});

for (const status of [502, 503, 504]) {
  test(`a proxy's ${status} is tried again where the call may be repeated`, async () => {
    const proxy = (response: import("node:http").ServerResponse) => void response.writeHead(status).end("<html>");
    await using server = await scriptedServer([proxy, proxy, json({ sandboxes: [] })]);
    assert.deepEqual(await transportTo(server.url).json("listSandboxes", { params: {} }), { sandboxes: [] });
    assert.equal(server.seen.length, 3);
  });
}

test("a call that may not be repeated fails with OPERATION_INTERRUPTED after a broken connection", async () => {
  await using server = await scriptedServer([(response) => void response.socket?.destroy(), json({})]);
  const call = { params: { sandbox: "box" }, body: { path: "/a", to: "/b" } };
  await assert.rejects(transportTo(server.url).json("moveFile", call), { code: "OPERATION_INTERRUPTED" });
  assert.equal(server.seen.length, 1);
});

test("an answer that breaks off in its middle is asked for again", async () => {
  await using server = await scriptedServer([
    (response) => void response.writeHead(200, { "content-length": 100 }).write("{", () => response.socket?.destroy()),
    json({ images: [] }),
  ]);
  assert.deepEqual(await transportTo(server.url).json("listImages", { params: {} }), { images: [] });
});

test("a refused connection is tried again for every verb, until the daemon is back", async () => {
  const { port } = await scriptedServer([json({})]).then(async (server) => {
    await using closing = server;
    return closing;
  });
  const url = `http://127.0.0.1:${port}`;
  const call = transportTo(url).json("moveFile", { params: { sandbox: "box" }, body: { path: "/a", to: "/b" } });
  await using server = await scriptedServer([json({ name: "b" })], { port });
  assert.deepEqual(await call, { name: "b" });
  assert.equal(server.seen.length, 1);
});

test("without any daemon a call soon fails with SANDBOX_UNAVAILABLE, which names the URL and the remedy", async () => {
  const port = await unusedPort();
  await assert.rejects(transportTo(`http://127.0.0.1:${port}`).json("health", { params: {} }), (error: unknown) => {
    assert(SandboxError.is(error, "SANDBOX_UNAVAILABLE"));
    assert.match(error.message, new RegExp(`^Cannot reach the daemon at http://127.0.0.1:${port}: `));
    assert.match(error.suggestion ?? "", /atoll up/);
    assert(error.retryable);
    return true;
  });
});

test("what is no daemon is told so, with the URL", async () => {
  await using server = await scriptedServer([
    (response) => void response.writeHead(404).end("<h1>nginx</h1>"),
    (response) => void response.end("<h1>hello</h1>"),
  ]);
  const transport = transportTo(server.url);
  await assert.rejects(transport.json("health", { params: {} }), {
    code: "INTERNAL_ERROR",
    message: /answered 404 .*nginx/,
  });
  await assert.rejects(transport.json("health", { params: {} }), {
    code: "INTERNAL_ERROR",
    message: /not JSON: .*hello/,
  });
  await assert.rejects(read(server.url), { code: "INTERNAL_ERROR", message: /an event stream was expected/ });
});

test("a daemon that comes back with another token is asked again with it", async () => {
  let token = "old";
  await using server = await scriptedServer([
    (response, seen) => {
      if (seen.headers.authorization === "Bearer new") return json({ images: [] })(response, seen, null as never);
      token = "new";
      return json({ code: "UNAUTHORIZED", message: "Cannot let you in" }, 401)(response, seen, null as never);
    },
  ]);
  const transport = createTransport(() => Promise.resolve({ url: server.url, token }), quick);
  assert.deepEqual(await transport.json("listImages", { params: {} }), { images: [] });
});

test("a stream that is cut goes on behind its last event, with the same request", async () => {
  await using server = await scriptedServer([
    events(event("1-0", start) + event("1-3", out("abc")), "cut"),
    events(event("1-6", out("def")) + 'id: 1-9\ndata: {"type":"stdo', "cut"),
    events(event("1-9", out("ghi")) + event("1-9", complete)),
  ]);
  assert.equal(await read(server.url), "<start>abcdefghi<complete>");
  assert.deepEqual(
    server.seen.map((seen) => seen.headers["last-event-id"]),
    [undefined, "1-3", "1-6"],
  );
  assert.equal(new Set(server.seen.map((seen) => seen.body)).size, 1);
});

test("a stream that is silent is asked for again, one with comments is not", async () => {
  const server = await scriptedServer([
    events(event("1-0", start), "silence"),
    (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      let comments = 0;
      const timer = setInterval(() => {
        response.write(":\n\n");
        if (++comments < 6) return;
        clearInterval(timer);
        response.end(event("1-0", complete));
      }, quick.silenceMs / 3);
    },
  ]);
  await using _ = server;
  assert.equal(await read(server.url), "<start><complete>");
  assert.equal(server.seen.length, 2);
});

test("a stream that ends without its last event was cut off, also when it ends in order", async () => {
  await using server = await scriptedServer([events(event("1-0", start)), events(event("1-0", complete))]);
  assert.equal(await read(server.url), "<start><complete>");
});

test("a stream whose headers never come is asked for again", async () => {
  await using server = await scriptedServer([() => {}, events(event("1-0", complete))]);
  assert.equal(await read(server.url), "<complete>");
});

test("a stream goes on through a daemon that is away for a while", async () => {
  const first = await scriptedServer([events(event("1-0", start) + event("1-3", out("abc")), "cut")]);
  const reading = read(first.url);
  await until("the stream was cut", () => first.seen.length === 1 && first.connections() === 0);
  await first[Symbol.asyncDispose]();
  await using second = await scriptedServer([events(event("1-3", complete))], { port: first.port });
  assert.equal(await reading, "<start>abc<complete>");
  assert.equal(second.seen[0]?.headers["last-event-id"], "1-3");
});

test("a stream whose daemon stays away fails with SANDBOX_UNAVAILABLE", async () => {
  // A reader that asks again before the server has gone is cut off again.
  const cut = events("", "cut");
  const server = await scriptedServer([events(event("1-0", start), "cut"), ...Array.from({ length: 50 }, () => cut)]);
  const reading = read(server.url);
  await server[Symbol.asyncDispose]();
  await assert.rejects(reading, { code: "SANDBOX_UNAVAILABLE" });
});

test("a stream without ids says when it begins anew", async () => {
  await using server = await scriptedServer([
    events(event(undefined, { type: "files", files: [1] }), "cut"),
    events(
      event(undefined, { type: "files", files: [1, 2] }) + event(undefined, { type: "complete", count: 2, path: "/" }),
    ),
  ]);
  let restarts = 0;
  const arriving = transportTo(server.url).events(
    "listFiles",
    { params: { sandbox: "box" }, query: { path: "/" } },
    { onRestart: () => restarts++ },
  );
  const types: string[] = [];
  for await (const { event } of arriving) types.push(event.type);
  assert.deepEqual({ types, restarts }, { types: ["files", "files", "complete"], restarts: 1 });
});

test("an error event is thrown, and nothing is asked again", async () => {
  const error = { code: "AGENT_UNREACHABLE", message: "Cannot reach the agent: gone" };
  await using server = await scriptedServer([events(event("1-0", start) + event(undefined, { type: "error", error }))]);
  await assert.rejects(read(server.url), { code: "AGENT_UNREACHABLE", operation: "exec" });
  assert.equal(server.seen.length, 1);
});

for (const [what, text] of [
  ["no JSON", "data: {nope\n\n"],
  ["no object", "data: 7\n\n"],
  ["without a type", "data: {}\n\n"],
] as const) {
  test(`an event that is ${what} is a clear error`, async () => {
    await using server = await scriptedServer([events(text)]);
    await assert.rejects(read(server.url), { code: "INTERNAL_ERROR", message: /^Cannot exec: an event / });
    assert.equal(server.seen.length, 1);
  });
}

test("a signal ends a stream, also while the daemon is away, and closes its connection", async () => {
  await using server = await scriptedServer([events(event("1-0", start), "silence")]);
  const abort = new AbortController();
  const arriving = transportTo(server.url).events("exec", exec, { signal: abort.signal });
  await arriving.next();
  abort.abort(new Error("enough"));
  await assert.rejects(arriving.next(), { code: "ABORTED" });

  const waiting = new AbortController();
  const away = read(`http://127.0.0.1:${await unusedPort()}`, { signal: waiting.signal });
  waiting.abort();
  await assert.rejects(away, { code: "ABORTED" });
});

test("a stream that was read to its end leaves its connection to the next call", async () => {
  await using server = await scriptedServer([events(event("1-0", start) + event("1-0", complete))]);
  const transport = transportTo(server.url);
  for (let call = 0; call < 20; call++) {
    for await (const { event } of transport.events("exec", exec)) if (event.type === "complete") break;
  }
  // Two: a call may begin while the end of the answer before it is still being read.
  assert(server.connections() <= 2, `${server.connections()} connections`);
});

test("leaving a stream before its end closes its connection", async () => {
  await using server = await scriptedServer([events(event("1-0", start), "silence")]);
  for await (const _ of transportTo(server.url).events("exec", exec)) break;
  await until("the connection is closed", () => server.connections() === 0);
});

test("close() ends what is under way and refuses what comes later", async () => {
  await using server = await scriptedServer([events(event("1-0", start), "silence"), () => {}]);
  const transport = transportTo(server.url);
  const arriving = transport.events("exec", exec);
  await arriving.next();
  const call = transport.json("health", { params: {} });
  transport.close();
  await assert.rejects(arriving.next(), { code: "ABORTED", message: /closed/ });
  await assert.rejects(call, { code: "ABORTED" });
  await assert.rejects(transport.json("health", { params: {} }), { code: "ABORTED" });
});

test("a download that is cut goes on by Range", async () => {
  const file = JSON.stringify({ name: "f", size: 10 });
  await using server = await scriptedServer([
    (response) =>
      void response
        .writeHead(200, { "atoll-file": file, "content-length": 10 })
        .write("01234", () => response.socket?.destroy()),
    (response, { headers }) => {
      assert.equal(headers.range, "bytes=5-");
      response
        .writeHead(206, { "atoll-file": file, "content-range": "bytes 5-9/10", "content-length": 5 })
        .end("56789");
    },
  ]);
  const call = { params: { sandbox: "box" }, query: { path: "/f" } };
  const { body } = await transportTo(server.url).bytes("readFile", call, { resumable: true });
  assert.equal(await new Response(body as ReadableStream<Uint8Array<ArrayBuffer>>).text(), "0123456789");
});

for (const [what, status, headers] of [
  ["has changed meanwhile", 206, { "atoll-file": '{"name":"f","size":11}', "content-range": "bytes 5-10/11" }],
  ["is not served from there", 200, { "atoll-file": '{"name":"f","size":10}' }],
] as const) {
  test(`a download whose file ${what} fails with OPERATION_INTERRUPTED`, async () => {
    await using server = await scriptedServer([
      (response) =>
        void response
          .writeHead(200, { "atoll-file": '{"name":"f","size":10}', "content-length": 10 })
          .write("01234", () => response.socket?.destroy()),
      (response) => void response.writeHead(status, headers).end("567890"),
    ]);
    const call = { params: { sandbox: "box" }, query: { path: "/f" } };
    const { body } = await transportTo(server.url).bytes("readFile", call, { resumable: true });
    await assert.rejects(new Response(body as ReadableStream<Uint8Array<ArrayBuffer>>).text(), {
      code: "OPERATION_INTERRUPTED",
    });
  });
}

test("an archive that is cut fails, because a tar stream cannot be gone on with", async () => {
  await using server = await scriptedServer([
    (response) => void response.writeHead(200).write("01234", () => response.socket?.destroy()),
  ]);
  const call = { params: { sandbox: "box" }, query: { path: "/f" } };
  const { body } = await transportTo(server.url).bytes("downloadArchive", call, { resumable: false });
  await assert.rejects(new Response(body as ReadableStream<Uint8Array<ArrayBuffer>>).text(), {
    code: "OPERATION_INTERRUPTED",
  });
  assert.equal(server.seen.length, 1);
});

test("cancelling a download closes its connection", async () => {
  await using server = await scriptedServer([(response) => void response.writeHead(200).write("01234")]);
  const call = { params: { sandbox: "box" }, query: { path: "/f" } };
  const { body } = await transportTo(server.url).bytes("readFile", call, { resumable: true });
  await body.cancel();
  await until("the connection is closed", () => server.connections() === 0);
});

test("a streamed upload arrives whole, and is never sent twice", async () => {
  await using server = await scriptedServer([json({ name: "f" }), (response) => void response.socket?.destroy()]);
  const transport = transportTo(server.url);
  const upload = () =>
    transport.json("writeFile", {
      params: { sandbox: "box" },
      query: { path: "/ä b" },
      body: streamFrom(["one ", new TextEncoder().encode("two ✓")]),
    });
  await upload();
  assert.equal(server.seen[0]?.body, "one two ✓");
  assert.equal(server.seen[0]?.path, "/v1/sandboxes/box/files/content?path=%2F%C3%A4+b");
  await assert.rejects(upload(), { code: "OPERATION_INTERRUPTED" });
  assert.equal(server.seen.length, 2);
});

test("what an upload's own stream throws is thrown", async () => {
  function* broken() {
    yield "one";
    throw new Error("the tape is torn");
  }
  const call = { params: { sandbox: "box" }, query: { path: "/f" }, body: streamFrom(broken()) };
  await using silent = await scriptedServer([() => {}]);
  await assert.rejects(transportTo(silent.url).json("writeFile", call), { message: "the tape is torn" });
});

test("bytes that are there are sent again after a broken connection", async () => {
  await using server = await scriptedServer([(response) => void response.socket?.destroy(), json({ name: "f" })]);
  const call = { params: { sandbox: "box" }, query: { path: "/f" }, body: new Uint8Array([1, 2, 3]) };
  await transportTo(server.url).json("writeFile", call);
  assert.deepEqual(
    server.seen.map((seen) => seen.body),
    ["\u0001\u0002\u0003", "\u0001\u0002\u0003"],
  );
});

/** As bytes for the type; text in it is allowed. */
function streamFrom(values: Iterable<string | Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const iterator = values[Symbol.iterator]();
  return new ReadableStream<unknown>({
    pull(controller) {
      const { done, value } = iterator.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  }) as ReadableStream<Uint8Array<ArrayBuffer>>;
}

async function unusedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as import("node:net").AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
