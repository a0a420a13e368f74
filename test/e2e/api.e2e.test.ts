import assert from "node:assert/strict";
import { connect as connectTcp } from "node:net";
import { request } from "node:http";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { verbs, type VerbShape } from "../../protocol/verbs.ts";
import { TestDaemon } from "../support/daemon.ts";

let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start();
});

after(() => daemon[Symbol.asyncDispose]());

type Options = { method?: string; body?: unknown; headers?: Record<string, string>; token?: string | null };

async function call(path: string, { method = "GET", body, headers = {}, token = daemon.token }: Options = {}) {
  const response = await fetch(`${daemon.url}${path}`, {
    method,
    headers: { ...(token !== null && { authorization: `Bearer ${token}` }), ...headers },
    ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, json: text.startsWith("{") ? JSON.parse(text) : text };
}

test("without the token, or with a wrong one, nothing is told", async () => {
  for (const token of [null, "", "wrong", `${daemon.token}x`]) {
    for (const path of ["/v1/health", "/v1/sandboxes", "/v1/openapi.json", "/nowhere"]) {
      const { status, json } = await call(path, { token });
      assert.deepEqual([status, json.code], [401, "UNAUTHORIZED"], `${path} with ${token}`);
    }
  }
});

test("a client of another version is told so, and can still learn of the daemon", async () => {
  const older = { headers: { "atoll-wire": "0" } };
  const { status, json } = await call("/v1/sandboxes", older);
  assert.deepEqual([status, json.code], [409, "VERSION_MISMATCH"]);
  assert.match(json.suggestion, /atoll down/);
  const { json: health } = await call("/v1/health", older);
  assert.equal((await call("/v1/sandboxes", { headers: { "atoll-wire": String(health.wire) } })).status, 200);
});

test("a token in a URL or a cookie opens nothing", async () => {
  const headers = { cookie: `token=${daemon.token}; authorization=${daemon.token}` };
  assert.equal((await call(`/v1/health?token=${daemon.token}`, { token: null, headers })).status, 401);
});

test("a request for another host is refused, so no page elsewhere can point its name here", async () => {
  const { port } = new URL(daemon.url);
  const ask = (name: string) =>
    new Promise<number>((resolve, reject) => {
      const headers = { host: name, authorization: `Bearer ${daemon.token}` };
      request({ host: "127.0.0.1", port, path: "/v1/health", headers }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      })
        .on("error", reject)
        .end();
    });
  assert.equal(await ask("localhost"), 200);
  assert.equal(await ask(`127.0.0.1:${port}`), 200);
  assert.equal(await ask(`[::1]:${port}`), 200);
  for (const name of ["evil.example.com", "localhost.evil.example.com", "127.0.0.1.example.com"])
    assert.equal(await ask(name), 403);
});

test("the API answers on both loopbacks", async () => {
  const { port } = new URL(daemon.url);
  const response = await fetch(`http://[::1]:${port}/v1/health`, {
    headers: { authorization: `Bearer ${daemon.token}` },
  });
  assert.equal(response.status, 200);
});

test("the description covers every verb", async () => {
  const { json } = await call("/v1/openapi.json");
  assert.equal(json.openapi, "3.1.0");
  const operations = Object.values(json.paths).flatMap((path) =>
    Object.values(path as object).map((one) => one.operationId),
  );
  assert.deepEqual(operations.sort(), Object.keys(verbs).sort());
});

test("an unknown verb, a wrong method and a wrong body are told apart from what exists", async () => {
  const bad = [
    ["/v1/nonsense", {}, "VALIDATION_FAILED"],
    ["/v1/sandboxes/box/nonsense", {}, "VALIDATION_FAILED"],
    ["/v1/sandboxes/box/processes", { method: "PATCH", body: {} }, "VALIDATION_FAILED"],
    ["/v1/sandboxes/box/processes", { method: "POST", body: "{" }, "VALIDATION_FAILED"],
    ["/v1/sandboxes/box/processes", { method: "POST", body: "[]" }, "VALIDATION_FAILED"],
    ["/v1/sandboxes/box/processes", { method: "POST", body: { processId: "p" } }, "INVALID_COMMAND"],
    ["/v1/sandboxes/box/processes", { method: "POST", body: { processId: "p", command: "a\0b" } }, "INVALID_COMMAND"],
    ["/v1/sandboxes/box/processes", { method: "POST", body: { processId: "p", argv: [""] } }, "INVALID_COMMAND"],
    [
      "/v1/sandboxes/box/processes",
      { method: "POST", body: { processId: "p", argv: ["x"], command: "x" } },
      "INVALID_COMMAND",
    ],
    [
      "/v1/sandboxes/box/processes",
      { method: "POST", body: { processId: "p", command: "x", unknown: 1 } },
      "VALIDATION_FAILED",
    ],
    [
      "/v1/sandboxes/box/processes",
      { method: "POST", body: { processId: "p", command: "x", timeoutMs: -1 } },
      "VALIDATION_FAILED",
    ],
    [
      "/v1/sandboxes/box/processes",
      { method: "POST", body: { processId: "p", command: "x", env: { "A=B": "1" } } },
      "VALIDATION_FAILED",
    ],
    ["/v1/sandboxes/box/files/stat?path=a%00b", {}, "VALIDATION_FAILED"],
    [`/v1/sandboxes/box/files/stat?path=${"a".repeat(5_000)}`, {}, "VALIDATION_FAILED"],
    ["/v1/sandboxes/box/files/stat", {}, "VALIDATION_FAILED"],
    ["/v1/sandboxes/-box", {}, "INVALID_SANDBOX_ID"],
    ["/v1/sandboxes/api", {}, "INVALID_SANDBOX_ID"],
    [`/v1/sandboxes/${"a".repeat(64)}`, {}, "INVALID_SANDBOX_ID"],
    ["/v1/sandboxes/a%2Fb", {}, "INVALID_SANDBOX_ID"],
    ["/v1/sandboxes?labels=x", {}, "VALIDATION_FAILED"],
    ["/v1/sandboxes?state=sleepy", {}, "VALIDATION_FAILED"],
    [
      "/v1/sandboxes/box",
      { method: "PUT", body: { instance: { vcpu: 1, memoryMiB: -5, diskMB: 100 } } },
      "VALIDATION_FAILED",
    ],
    ["/v1/sandboxes/box", { method: "PUT", body: { sleepAfter: "soon" } }, "VALIDATION_FAILED"],
    ["/v1/sandboxes/box", { method: "PUT", body: { image: "nothing-like-it" } }, "IMAGE_NOT_FOUND"],
    ["/v1/sandboxes/box", { method: "PUT", body: { isolation: "gvisor" } }, "NOT_SUPPORTED"],
    ["/v1/sandboxes/box", {}, "SANDBOX_NOT_FOUND"],
  ] as const;
  for (const [path, options, code] of bad) {
    const { status, json } = await call(path, options as Options);
    assert.equal(json.code, code, `${path} ${JSON.stringify(options)}: ${JSON.stringify(json)}`);
    assert.ok(status >= 400 && json.message.startsWith("Cannot "), json.message);
  }
  assert.deepEqual((await call("/v1/sandboxes")).json, { sandboxes: [] }, "a refused request has made a sandbox");
});

test("a body beyond the limit is refused, told in advance or not", async () => {
  const huge = JSON.stringify({ processId: "p", command: "x".repeat(17 * 1024 * 1024) });
  const refused = await call("/v1/sandboxes/box/processes", { method: "POST", body: huge });
  assert.deepEqual([refused.status, refused.json.code], [413, "PAYLOAD_TOO_LARGE"]);
  const chunks = async function* () {
    for (let i = 0; i < 40; i++) yield new Uint8Array(1024 * 1024).fill(32);
  };
  const response = await fetch(`${daemon.url}/v1/sandboxes/box/processes`, {
    method: "POST",
    headers: { authorization: `Bearer ${daemon.token}` },
    body: Readable.toWeb(Readable.from(chunks())),
    duplex: "half",
  } as unknown as RequestInit);
  assert.equal(response.status, 413);
});

test("garbage on the socket harms nobody", async () => {
  const { port } = new URL(daemon.url);
  await new Promise<void>((resolve) => {
    const socket = connectTcp(Number(port), "127.0.0.1", () => socket.write("\0\xff nonsense\r\n\r\n"));
    socket.on("error", () => {});
    socket.on("close", () => resolve());
    socket.resume();
  });
  assert.equal((await call("/v1/health")).status, 200);
});

test("verbs that need only the record, or a run that there is, wake nothing", async () => {
  await call("/v1/sandboxes/quiet", { method: "PUT", body: { labels: { kind: "test" } } });
  const quiet: [string, Options][] = [
    ["/v1/sandboxes/quiet", {}],
    ["/v1/sandboxes/quiet", { method: "PATCH", body: { keepAlive: true } }],
    ["/v1/sandboxes/quiet/processes", {}],
    ["/v1/sandboxes/quiet/connections", {}],
    ["/v1/sandboxes/quiet/signal", { method: "POST", body: { signal: "SIGTERM" } }],
    ["/v1/sandboxes/quiet/stop", { method: "POST" }],
    ["/v1/sandboxes?state=none", {}],
  ];
  for (const [path, options] of quiet) assert.equal((await call(path, options)).status, 200, path);
  const { json } = await call("/v1/sandboxes/quiet");
  assert.deepEqual([json.state, json.run, json.keepAlive, json.labels], ["none", 0, true, { kind: "test" }]);
  assert.equal((await call("/v1/sandboxes/quiet/processes/p")).json.code, "PROCESS_NOT_FOUND");
  assert.deepEqual((await call("/v1/sandboxes/quiet", { method: "DELETE" })).json, { existed: true });
  assert.deepEqual((await call("/v1/sandboxes/quiet", { method: "DELETE" })).json, { existed: false });
});

test("lists are told apart by label and state", async () => {
  for (const [name, team] of [
    ["a", "data"],
    ["b", "data"],
    ["c", "web"],
  ]) {
    await call(`/v1/sandboxes/${name}`, { method: "PUT", body: { labels: { team } } });
  }
  const ids = async (query: string) =>
    (await call(`/v1/sandboxes${query}`)).json.sandboxes.map((one: { id: string }) => one.id);
  assert.deepEqual(await ids(`?labels=${encodeURIComponent('{"team":"data"}')}`), ["a", "b"]);
  assert.deepEqual(await ids("?state=running"), []);
  assert.deepEqual(await ids(""), ["a", "b", "c"]);
});

test("a handle of an older run is refused", async () => {
  await call("/v1/sandboxes/a/start", { method: "POST" });
  const stale = await call("/v1/sandboxes/a/processes/p?run=7");
  assert.deepEqual([stale.status, stale.json.code, stale.json.details.currentRun], [409, "STALE_HANDLE", 1]);
  const resumed = await call("/v1/sandboxes/a/processes", {
    method: "POST",
    body: { processId: "p", argv: ["true"] },
    headers: { "last-event-id": "9-100" },
  });
  assert.equal(resumed.json.code, "OPERATION_INTERRUPTED");
});

test("every verb of the table is served", async () => {
  for (const [name, verb] of Object.entries(verbs) as [string, VerbShape][]) {
    if (name === "down" || name === "buildImage") continue;
    const path = verb.path.replace(/:[a-z]+/g, "-");
    const { json } = await call(path, { method: verb.method, ...(verb.method !== "GET" && verb.body && { body: {} }) });
    assert.ok(!String(json.message ?? "").includes("no such verb"), `${name}: ${JSON.stringify(json)}`);
  }
});

test("every answer carries a request id of its own, and the log has it", async () => {
  const ids = [await call("/v1/health"), await call("/v1/nowhere"), await call("/v1/health", { token: null })].map(
    (answer) => answer.headers.get("x-request-id"),
  );
  assert.equal(new Set(ids).size, 3);
  for (const id of ids) assert.ok(id && daemon.log().includes(id), `${id}`);
});

test("no token and no variable of a sandbox comes into the log", async () => {
  await call("/v1/sandboxes/a", { method: "PATCH", body: { envVars: { PASSWORD: "hunter2-hunter2" } } });
  const body = { processId: "secret", argv: ["true"], env: { KEY: "swordfish-swordfish" } };
  await call("/v1/sandboxes/a/processes", { method: "POST", body });
  const log = daemon.log();
  for (const secret of [daemon.token, "hunter2-hunter2", "swordfish-swordfish"]) assert.ok(!log.includes(secret));
});
