import assert from "node:assert/strict";
import { test } from "node:test";
import { event, events, json, scriptedServer, type Seen, type Step } from "../test/support/scripted-server.ts";
import { until } from "../test/support/until.ts";
import { connect } from "./connection.ts";
import { parseSSEStream } from "./events.ts";
import type { ExecEvent } from "./exec-options.ts";
import { getSandbox, Sandbox } from "./sandbox.ts";

const at = "2026-01-01T00:00:00.000Z";
const start = event("1-0", { type: "start", timestamp: at, pid: 7, processId: "p", sessionId: "default" });
const out = (data: string, bytes?: string) => event("1-5", { type: "stdout", timestamp: at, data, bytes });
function complete(end: object = {}): string {
  const result = { exitCode: 0, success: true, endedAtMs: 1, durationMs: 12, cpuTimeMs: 3, background: false, ...end };
  return event("1-9", { type: "complete", timestamp: at, exitCode: result.exitCode, result });
}

/** A server that answers by method and the last part of the path. */
async function serve(routes: Record<string, Step>) {
  const route: Step = (response, seen, request) => {
    const name = nameOf(seen);
    const step = routes[name];
    if (step) return step(response, seen, request);
    return json({ code: "INTERNAL_ERROR", message: `Cannot serve ${name}` }, 500)(response, seen, request);
  };
  const server = await scriptedServer([route]);
  return Object.assign(server, { names: () => server.seen.map(nameOf), connection: connect({ url: server.url }) });
}

function nameOf({ method, path }: Seen): string {
  return `${method} ${path.replace(/\?.*/, "").split("/").pop()}`;
}

function bodyOf(seen: Seen | undefined): Record<string, unknown> {
  return JSON.parse(seen?.body ?? "null") as Record<string, unknown>;
}

test("nothing is sent before the first verb, and only the verb where there are no options", async () => {
  await using server = await serve({ "POST processes": events(start + complete()) });
  const box = getSandbox(server.connection, "box");
  assert.deepEqual(server.names(), []);
  await box.exec("true");
  await box.exec("true");
  assert.deepEqual(server.names(), ["POST processes", "POST processes"]);
});

test("options are told once before the first verbs, which wait for it together", async () => {
  await using server = await serve({ "PUT box": json({}), "POST processes": events(start + complete()) });
  const box = getSandbox(server.connection, "box", { labels: { a: "b" } });
  await Promise.all([box.exec("true"), box.exec("true"), box.exec("true")]);
  await box.exec("true");
  assert.deepEqual(server.names(), ["PUT box", ...Array<string>(4).fill("POST processes")]);
  assert.deepEqual(bodyOf(server.seen[0]), { labels: { a: "b" } });
});

test("options that could not be told are told again by the next verb", async () => {
  let full = true;
  await using server = await serve({
    "PUT box": (...call) =>
      (full ? json({ code: "CAPACITY_EXCEEDED", message: "Cannot: full" }, 503) : json({}))(...call),
    "POST processes": events(start + complete()),
  });
  const box = getSandbox(server.connection, "box", { sleepAfter: "5m" });
  const both = await Promise.allSettled([box.exec("true"), box.exec("true")]);
  assert.deepEqual(
    both.map(({ status }) => status),
    ["rejected", "rejected"],
  );
  full = false;
  assert.equal((await box.exec("true")).exitCode, 0);
  assert.deepEqual(server.names(), ["PUT box", "PUT box", "POST processes"]);
});

test("destroying tells no options and makes no sandbox; the next verb tells them again", async () => {
  await using server = await serve({
    "PUT box": json({}),
    "DELETE box": json({ existed: false }),
    "POST processes": events(start + complete()),
  });
  const box = getSandbox(server.connection, "box", { image: "python" });
  assert.deepEqual(await box.destroy(), { existed: false });
  await box.exec("true");
  await box.destroy();
  await box.exec("true");
  assert.deepEqual(server.names(), [
    "DELETE box",
    "PUT box",
    "POST processes",
    "DELETE box",
    "PUT box",
    "POST processes",
  ]);
});

test("a namespace's class is made, with its fields read at the first verb", async () => {
  class AgentBox extends Sandbox {
    sleepAfter = "5m";
    enableDefaultSession = false;
    async hello() {
      return (await this.exec("echo hello")).stdout;
    }
  }
  await using server = await serve({
    "PUT box": json({}),
    "POST processes": events(start + out("hello\n") + complete()),
  });
  const box = getSandbox({ connection: server.connection, sandboxClass: AgentBox }, "box");
  assert(box instanceof AgentBox);
  box.sleepAfter = "7m";
  assert.equal(await box.hello(), "hello\n");
  assert.deepEqual(bodyOf(server.seen[0]), { sleepAfter: "7m", className: "AgentBox" });
  assert.equal(bodyOf(server.seen[1])["session"], null);
});

test("a class with a promise that this version cannot keep is refused at the first verb", async () => {
  class Closed extends Sandbox {
    enableInternet = false;
  }
  await using server = await serve({});
  const box = getSandbox({ connection: server.connection, sandboxClass: Closed }, "box");
  await assert.rejects(box.exec("true"), { code: "NOT_SUPPORTED" });
  await assert.rejects(box.readFile("/a"), { code: "NOT_SUPPORTED" });
  await assert.rejects(box.info(), { code: "NOT_SUPPORTED" });
  assert.deepEqual(server.names(), []);
});

for (const id of ["", "-a", "a-", "a b", "ä", "a".repeat(64), "Localhost", "a/b", undefined]) {
  test(`${JSON.stringify(id)} is no id, and that is said at once`, () => {
    assert.throws(() => getSandbox(null, id as string), { code: "INVALID_SANDBOX_ID" });
  });
}

test("an id is lower-cased where that is asked for, and may come without a namespace", () => {
  assert.equal(getSandbox("Agent-47", { normalizeId: true }).id, "agent-47");
  assert.equal(getSandbox(undefined, "Agent-47").id, "Agent-47");
});

test("the result has every documented field", async () => {
  const end = {
    exitCode: 124,
    success: false,
    signal: "SIGTERM",
    reason: "timeout",
    stateSaved: false,
    sessionId: "s",
  };
  const text = start + out("a") + event("1-6", { type: "stderr", timestamp: at, data: "b" }) + complete(end);
  await using server = await serve({ "POST processes": events(text) });
  assert.deepEqual(await getSandbox(server.connection, "box").exec("sleep 9", { timeout: 5 }), {
    success: false,
    exitCode: 124,
    stdout: "a",
    stderr: "b",
    command: "sleep 9",
    duration: 12,
    timestamp: at,
    cpuTime: 3,
    signal: "SIGTERM",
    reason: "timeout",
    timedOut: true,
    stateSaved: false,
    sessionId: "s",
  });
});

test("a request says what was asked, and nothing else", async () => {
  await using server = await serve({ "POST processes": events(start + complete()) });
  const box = getSandbox(server.connection, "box");
  await box.exec("true");
  const env = { A: "1", B: undefined, C: null };
  const options = { cwd: "src", env, timeout: 5, user: "node", stderr: "merge", stdin: "ü" } as const;
  await box.exec("ls", ["-l", "a b"], options);
  const [plain, full] = server.seen.map(bodyOf);
  const { processId: first, ...plainly } = plain ?? {};
  const { processId: second, ...fully } = full ?? {};
  assert.notEqual(first, second);
  assert.deepEqual(plainly, { command: "true", session: "default" });
  assert.deepEqual(fully, {
    argv: ["ls", "-l", "a b"],
    session: "default",
    cwd: "src",
    env: { A: "1", B: null, C: null },
    timeoutMs: 5,
    user: "node",
    stderr: "merge",
    stdin: { base64: "w7w=" },
  });
});

test("callbacks hear of output in order, and the next piece waits for their promises", async () => {
  const text = start + out("a") + event("1-2", { type: "stderr", timestamp: at, data: "b" }) + out("c") + complete();
  await using server = await serve({ "POST processes": events(text) });
  const heard: string[] = [];
  const result = await getSandbox(server.connection, "box").exec("x", {
    stream: true,
    async onOutput(stream, data) {
      heard.push(`${stream} ${data}`);
      await new Promise((resolve) => setImmediate(resolve));
      heard.push("done");
    },
    onComplete: (result) => heard.push(`complete ${result.stdout}`),
  });
  assert.deepEqual(heard, ["stdout a", "done", "stderr b", "done", "stdout c", "done", "complete ac"]);
  assert.equal(result.stdout, "ac");
});

test("an error is told to onError and thrown", async () => {
  await using server = await serve({ "POST processes": json({ code: "FILE_NOT_FOUND", message: "Cannot: no" }, 404) });
  let told: unknown;
  const call = getSandbox(server.connection, "box").exec("x", { cwd: "/no", onError: (error) => (told = error) });
  await assert.rejects(call, (error) => error === told);
  assert.equal((told as { code: string }).code, "FILE_NOT_FOUND");
});

test("encoding buffer gives exact bytes, to callbacks too", async () => {
  await using server = await serve({ "POST processes": events(start + out("a") + out("�", "/wA=") + complete()) });
  const heard: Uint8Array[] = [];
  const result = await getSandbox(server.connection, "box").exec("x", {
    encoding: "buffer",
    onOutput: (_, data) => void heard.push(data),
  });
  assert.deepEqual(result.stdout, new Uint8Array([97, 255, 0]));
  assert.deepEqual(heard, [new Uint8Array([97]), new Uint8Array([255, 0])]);
});

test("beyond maxBuffer the result is truncated, and so it is when the daemon had to drop output", async () => {
  const gap = event("1-3", { type: "truncated", timestamp: at, from: 0, to: 3 });
  await using server = await serve({ "POST processes": events(start + out("abc") + complete()) });
  const short = await getSandbox(server.connection, "box").exec("x", { maxBuffer: 2 });
  assert.deepEqual([short.stdout, short.truncated], ["ab", true]);
  await using dropping = await serve({ "POST processes": events(start + gap + out("abc") + complete()) });
  assert.equal((await getSandbox(dropping.connection, "box").exec("x")).truncated, true);
  await assert.rejects(getSandbox(server.connection, "box").exec("x", { maxBuffer: -1 }), {
    code: "VALIDATION_FAILED",
  });
});

test("a stream carries ids, events and the whole result; a Response carries the same", async () => {
  await using server = await serve({ "POST processes": events(start + out("a") + out("�", "4g==") + complete()) });
  const box = getSandbox(server.connection, "box");
  const response = await box.exec("x", ["y"], { stream: true });
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const text = await response.text();
  assert.equal(
    text,
    await new Response((await box.execStream("x", ["y"])) as ReadableStream<Uint8Array<ArrayBuffer>>).text(),
  );
  assert.deepEqual(text.match(/^id: .*/gm), ["id: p.1-0", "id: p.1-5", "id: p.1-5", "id: p.1-9"]);
  const read: ExecEvent[] = [];
  for await (const one of parseSSEStream<ExecEvent>(new Response(text).body as ReadableStream<Uint8Array>))
    read.push(one);
  assert.deepEqual(
    read.map(({ type, data, bytes, command }) => [type, data, bytes, command]),
    [
      ["start", undefined, undefined, "x y"],
      ["stdout", "a", undefined, undefined],
      ["stdout", "", "4g==", undefined],
      ["stdout", "\uFFFD", "", undefined],
      ["complete", undefined, undefined, undefined],
    ],
  );
  assert.deepEqual([read.at(-1)?.exitCode, read.at(-1)?.result?.stdout], [0, "a\uFFFD"]);
});

test("what keeps a streamed command from beginning is thrown, what happens later is its last event", async () => {
  await using refusing = await serve({
    "POST processes": json({ code: "FILE_NOT_FOUND", message: "Cannot: no" }, 404),
  });
  await assert.rejects(getSandbox(refusing.connection, "box").execStream("x"), { code: "FILE_NOT_FOUND" });
  const error = event(undefined, {
    type: "error",
    timestamp: at,
    error: { code: "AGENT_UNREACHABLE", message: "gone" },
  });
  await using failing = await serve({ "POST processes": events(start + error) });
  const text = await (await getSandbox(failing.connection, "box").exec("x", { stream: true })).text();
  assert.match(text, /data: {"type":"error","timestamp":"[^"]+","error":"gone"}\n\n$/);
});

test("an aborted signal never starts a command", async () => {
  await using server = await serve({});
  const call = getSandbox(server.connection, "box").exec("x", { signal: AbortSignal.abort() });
  await assert.rejects(call, { code: "ABORTED" });
  assert.deepEqual(server.names(), []);
});

test("an abort stops the process and waits for its real end", async () => {
  let finish = () => {};
  await using server = await serve({
    "POST processes": (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write(start);
      finish = () => response.end(complete({ exitCode: 143, success: false, signal: "SIGTERM", reason: "aborted" }));
    },
    "POST stop": (response, seen, request) => {
      finish();
      return json({})(response, seen, request);
    },
  });
  const abort = new AbortController();
  const call = getSandbox(server.connection, "box").exec("x", { signal: abort.signal });
  await until("the command is asked for", () => server.seen.length === 1);
  abort.abort();
  const { reason, exitCode } = await call;
  assert.deepEqual({ reason, exitCode }, { reason: "aborted", exitCode: 143 });
  assert.deepEqual(bodyOf(server.seen[1]), { reason: "aborted" });
  assert.equal(server.seen[1]?.path, `/v1/sandboxes/box/processes/${String(bodyOf(server.seen[0])["processId"])}/stop`);
});

test("an abort before the start stops the command when it starts", async () => {
  let begin = () => {};
  let finish = () => {};
  await using server = await serve({
    "POST processes": (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
      begin = () => void response.write(start);
      finish = () => void response.end(complete({ reason: "aborted" }));
    },
    "POST stop": (response, seen, request) => {
      finish();
      return json({})(response, seen, request);
    },
  });
  const abort = new AbortController();
  const call = getSandbox(server.connection, "box").exec("x", { signal: abort.signal });
  await until("the command is asked for", () => server.seen.length === 1);
  abort.abort();
  begin();
  assert.equal((await call).reason, "aborted");
});

test("a command that ends while it is aborted has its own result", async () => {
  const gone = json({ code: "PROCESS_NOT_FOUND", message: "Cannot: ended" }, 404);
  let finish = () => {};
  await using server = await serve({
    "POST processes": (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write(start);
      finish = () => response.end(complete());
    },
    "POST stop": (...call) => {
      void gone(...call);
      finish();
    },
  });
  const abort = new AbortController();
  const call = getSandbox(server.connection, "box").exec("x", { signal: abort.signal });
  await until("the command is asked for", () => server.seen.length === 1);
  abort.abort();
  assert.equal((await call).exitCode, 0);
});

test("large input and streams are written when the command has begun, then closed", async () => {
  for (const stdin of ["x".repeat(100_000), new Blob(["x".repeat(100_000)]).stream()]) {
    let finish = () => {};
    await using server = await serve({
      "POST processes": (response) => {
        response.writeHead(200, { "content-type": "text/event-stream" }).write(start);
        finish = () => response.end(complete());
      },
      "PUT stdin": (response, seen, request) => {
        finish();
        return json({})(response, seen, request);
      },
    });
    await getSandbox(server.connection, "box").exec("x", { stdin });
    assert.equal(bodyOf(server.seen[0])["stdin"], "pipe");
    assert.match(server.seen[1]?.path ?? "", /\/stdin\?end=true$/);
    assert.equal(server.seen[1]?.body.length, 100_000);
  }
});

test("a command that does not read its input ends as it ends", async () => {
  const closed = json({ code: "STALE_HANDLE", message: "Cannot write: its input is closed" }, 409);
  let finish = () => {};
  await using server = await serve({
    "POST processes": (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write(start);
      finish = () => response.end(complete());
    },
    "PUT stdin": (...call) => {
      void closed(...call);
      finish();
    },
  });
  assert.equal((await getSandbox(server.connection, "box").exec("x", { stdin: "x".repeat(100_000) })).exitCode, 0);
});

test("what the input's own stream throws stops the command and is thrown", async () => {
  let finish = () => {};
  await using server = await serve({
    "POST processes": (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write(start);
      finish = () => response.end(complete({ reason: "killed" }));
    },
    "PUT stdin": () => {},
    "POST stop": (response, seen, request) => {
      finish();
      return json({})(response, seen, request);
    },
  });
  const stdin = new ReadableStream<Uint8Array>({
    pull: () => {
      throw new Error("torn");
    },
  });
  await assert.rejects(getSandbox(server.connection, "box").exec("x", { stdin }), { message: "torn" });
});

test("input that is never read is given up when the command ends", async () => {
  let cancelled = false;
  await using server = await serve({
    "POST processes": (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write(start);
      setImmediate(() => response.end(complete()));
    },
    "PUT stdin": () => {},
  });
  const stdin = new ReadableStream<Uint8Array>({ cancel: () => void (cancelled = true) });
  assert.equal((await getSandbox(server.connection, "box").exec("x", { stdin })).exitCode, 0);
  await until("the input is cancelled", () => cancelled);
});

test("files and sessions say which session's directory they mean", async () => {
  const file = { name: "a.txt", size: 2 };
  await using server = await serve({
    "POST sessions": json({ id: "s" }),
    "GET s": json({ id: "s" }),
    "GET content": (response) => void response.writeHead(200, { "atoll-file": JSON.stringify(file) }).end("hi"),
  });
  const box = getSandbox(server.connection, "box", {});
  const session = await box.createSession({ id: "s", env: { A: "1", B: undefined }, cwd: "/srv", commandTimeoutMs: 5 });
  assert.deepEqual(bodyOf(server.seen[0]), { id: "s", cwd: "/srv", commandTimeoutMs: 5, env: { A: "1", B: null } });
  const { timestamp: _, ...read } = await session.readFile("a.txt");
  assert.deepEqual(read, {
    success: true,
    path: "a.txt",
    content: "hi",
    encoding: "utf-8",
    isBinary: false,
    mimeType: "text/plain",
    size: 2,
  });
  await (await box.getSession("s")).readFile("a.txt");
  await box.readFile("a.txt");
  assert.deepEqual(
    server.seen.slice(1).map(({ path }) => path.replace("/v1/sandboxes/box/", "")),
    [
      "files/content?path=a.txt&session=s",
      "sessions/s",
      "files/content?path=a.txt&session=s",
      "files/content?path=a.txt&session=default",
    ],
  );
});

test("a file that is no text is base64 unless it is asked for otherwise", async () => {
  const bytes = Buffer.from([137, 80, 78, 71, 0, 255]);
  const described = { "atoll-file": JSON.stringify({ name: "a.png", size: bytes.length }) };
  await using server = await serve({ "GET content": (response) => void response.writeHead(200, described).end(bytes) });
  const box = getSandbox(server.connection, "box");
  const byDefault = await box.readFile("a.png");
  assert.deepEqual(
    [byDefault.content, byDefault.encoding, byDefault.isBinary, byDefault.mimeType, byDefault.size],
    [bytes.toString("base64"), "base64", true, "image/png", 6],
  );
  assert.equal((await box.readFile("a.png", { encoding: "utf-8" })).content, bytes.toString("utf8"));
  const { content, size, encoding } = await box.readFile("a.png", { encoding: "none" });
  assert.deepEqual(
    [await new Response(content as ReadableStream<Uint8Array<ArrayBuffer>>).bytes(), size, encoding],
    [new Uint8Array(bytes), 6, "none"],
  );
});

test("base64 is written as its bytes; what is none is refused before anything is sent", async () => {
  await using server = await serve({ "PUT content": json({}) });
  const box = getSandbox(server.connection, "box");
  await box.writeFile("/a", "aGk=", { encoding: "base64", mode: 0o755 });
  assert.equal(server.seen[0]?.body, "hi");
  assert.match(server.seen[0]?.path ?? "", /mode=755/);
  await assert.rejects(box.writeFile("/a", "no!", { encoding: "base64" }), { code: "VALIDATION_FAILED" });
  assert.equal(server.seen.length, 1);
});

test("an encoding that is none is refused with those there are, before anything is sent", async () => {
  await using server = await serve({ "PUT box": json({}), "PUT content": json({}) });
  const box = getSandbox(server.connection, "box", { keepAlive: true });
  for (const encoding of ["utf16le", "BASE64", "none", "", null] as never[]) {
    await assert.rejects(box.writeFile("/a", "text", { encoding }), {
      code: "VALIDATION_FAILED",
      message: `Cannot write "/a": its encoding is "utf-8", "utf8" or "base64", not ${JSON.stringify(encoding)}`,
    });
  }
  for (const encoding of ["utf16le", "None", "", null] as never[]) {
    await assert.rejects(box.readFile("/a", { encoding }), {
      code: "VALIDATION_FAILED",
      message: `Cannot read "/a": its encoding is "utf-8", "utf8", "base64" or "none", not ${JSON.stringify(encoding)}`,
    });
  }
  assert.deepEqual(server.names(), []);
  for (const encoding of ["utf-8", "utf8", undefined] as const) await box.writeFile("/a", "text", { encoding });
  assert.deepEqual(server.names(), ["PUT box", ...Array<string>(3).fill("PUT content")]);
});

test("exists is false for what is not there, and no other error is taken for that", async () => {
  for (const [code, outcome] of [
    ["FILE_NOT_FOUND", false],
    ["NOT_DIRECTORY", false],
    ["PERMISSION_DENIED", undefined],
  ] as const) {
    await using server = await serve({ "GET stat": json({ code, message: "Cannot" }, 404) });
    const call = getSandbox(server.connection, "box").exists("/a");
    if (outcome === undefined) await assert.rejects(call, { code });
    else assert.equal((await call).exists, outcome);
  }
});

test("a listing that is cut in its middle begins anew, without what had come", async () => {
  const first = event(undefined, { type: "files", files: [{ name: "a" }] });
  const rest = event(undefined, { type: "files", files: [{ name: "b" }] });
  const end = event(undefined, { type: "complete", count: 2, path: "/" });
  await using server = await scriptedServer([events(first, "cut"), events(first + rest + end)]);
  const listed = await getSandbox(connect({ url: server.url }), "box").listFiles("/", { recursive: true });
  assert.deepEqual([listed.count, listed.files.map(({ name }) => name)], [2, ["a", "b"]]);
  assert.match(server.seen[0]?.path ?? "", /recursive=true&includeHidden=false/);
});

test("a clone reports git's progress and gives the daemon's result", async () => {
  const result = { success: true, repoUrl: "https://h/r", branch: "main", targetDir: "/workspace/r", timestamp: at };
  const text =
    event(undefined, { type: "progress", text: "Receiving" }) + event(undefined, { type: "complete", result });
  await using server = await serve({ "POST checkout": events(text) });
  const heard: string[] = [];
  const options = { depth: 1, onProgress: (text: string) => void heard.push(text) };
  assert.deepEqual(await getSandbox(server.connection, "box").gitCheckout("https://h/r", options), result);
  assert.deepEqual(heard, ["Receiving"]);
  const { processId: _, ...body } = bodyOf(server.seen[0]);
  assert.deepEqual(body, { url: "https://h/r", session: "default", depth: 1 });
});

test("a snapshot is NOT_SUPPORTED, and nothing starts", async () => {
  await using server = await serve({});
  await assert.rejects(getSandbox(server.connection, "box").start({ snapshot: "s" }), { code: "NOT_SUPPORTED" });
  await assert.rejects(server.connection.listSnapshots(), { code: "NOT_SUPPORTED" });
  assert.deepEqual(server.names(), []);
});

test("sandboxes are listed by labels and state", async () => {
  await using server = await serve({ "GET sandboxes": json({ sandboxes: [{ id: "a" }] }) });
  const found = await server.connection.listSandboxes({ labels: { team: "data" }, state: "asleep" });
  assert.deepEqual(found, [{ id: "a" }]);
  const query = new URL(server.seen[0]?.path ?? "", server.url).searchParams;
  assert.deepEqual(Object.fromEntries(query), { state: "asleep", labels: '{"team":"data"}' });
});
