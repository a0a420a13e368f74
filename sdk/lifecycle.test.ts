import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { event, events, json, scriptedServer, type Step } from "../test/support/scripted-server.ts";
import { until } from "../test/support/until.ts";
import { Connection } from "./connection.ts";
import { followLifecycle } from "./lifecycle.ts";
import { getSandbox, Sandbox, type SandboxClass } from "./sandbox.ts";
import { createTransport } from "./transport.ts";

const patience = { silenceMs: 45_000, giveUpMs: 200, firstContactMs: 200 };
const following = event("7", { type: "following" });
const about = { className: "Box", run: 1, time: 1 };
const startOf = (sandbox: string, id: string) => event(id, { type: "start", sandbox, ...about });

/** A server that answers the stream by the steps, one after another, and everything else with {}. */
async function serve(context: TestContext, streams: Step[]) {
  let asked = 0;
  const route: Step = (response, seen, request) => {
    const step = seen.path.startsWith("/v1/lifecycle") ? streams[Math.min(asked++, streams.length - 1)] : json({});
    return step?.(response, seen, request);
  };
  const server = await scriptedServer([route]);
  context.after(() => server[Symbol.asyncDispose]());
  return server;
}

function follow(context: TestContext, url: string, classes: Record<string, SandboxClass>) {
  const connection = new Connection(createTransport(() => Promise.resolve({ url }), patience));
  const end = new AbortController();
  context.after(() => end.abort());
  const failures: string[] = [];
  const bindings = Object.fromEntries(
    Object.entries(classes).map(([name, sandboxClass]) => [name, { connection, sandboxClass }]),
  );
  const begun = followLifecycle({
    bindings,
    signal: end.signal,
    onCallbackError: (error, where) => failures.push(`${where}: ${(error as Error).message}`),
  });
  return { bindings, begun, failures, end, connection };
}

class Quiet extends Sandbox {
  sleepAfter = "5m";
}

test("classes without callbacks ask for nothing, and have their names", async (context) => {
  const server = await serve(context, [events("")]);
  const { bindings, begun } = follow(context, server.url, { Plain: Sandbox, Renamed: Quiet });
  await begun;
  assert.deepEqual(server.seen, []);
  await getSandbox(bindings["Renamed"], "box").setLabels({});
  await getSandbox(bindings["Plain"], "box").setLabels({});
  const told = server.seen.filter(({ method }) => method === "PUT").map(({ body }) => JSON.parse(body) as unknown);
  assert.deepEqual(told, [{ sleepAfter: "5m", className: "Renamed" }, { className: "Plain" }]);
});

test("this is told nothing again: the options that the sandbox was made with stay", async (context) => {
  class Box extends Quiet {
    onStart = () => this.setLabels({ started: "yes" });
  }
  const server = await serve(context, [events(following + startOf("one", "8"), "silence")]);
  const { begun } = follow(context, server.url, { Box });
  await begun;
  await until("the callback has called", () => server.seen.length === 2);
  assert.deepEqual(
    server.seen.map(({ method, path }) => `${method} ${path}`),
    ["GET /v1/lifecycle?classes=Box", "PATCH /v1/sandboxes/one"],
  );
});

test("a daemon that refuses is told once, and asked again until it does not", async (context) => {
  const started: string[] = [];
  class Box extends Sandbox {
    onStart() {
      started.push(this.id);
    }
  }
  const refuse = json({ code: "VERSION_MISMATCH", message: "Cannot answer: another version" }, 409);
  const server = await serve(context, [refuse, refuse, events(following + startOf("one", "8"), "silence")]);
  const { begun, failures } = follow(context, server.url, { Box });
  await begun; // the app goes on meanwhile
  await until("it is followed in the end", () => started.length === 1);
  assert.deepEqual(failures, ["following the life of Box: Cannot answer: another version"]);
});

test("after an outage that even the transport gave up, it goes on behind the last event", async (context) => {
  const started: string[] = [];
  class Box extends Sandbox {
    onStart() {
      started.push(this.id);
    }
  }
  const server = await serve(context, [events(following + startOf("one", "8"), "silence")]);
  const { begun, failures } = follow(context, server.url, { Box });
  await begun;
  await until("the first is told", () => started.length === 1);
  await server[Symbol.asyncDispose]();
  await until("the outage is told", () => failures.length === 1);
  await using next = await scriptedServer([events(startOf("two", "9"), "silence")], { port: server.port });
  await until("the second is told", () => started.length === 2);
  assert.equal(next.seen[0]?.headers["last-event-id"], "8");
  assert.match(failures.join(), /^following the life of Box: Cannot reach the daemon/);
});

test("a class that cannot be made without its real id is followed all the same", async (context) => {
  const started: string[] = [];
  class Box extends Sandbox {
    constructor(...place: ConstructorParameters<SandboxClass>) {
      super(...place);
      if (!this.id.startsWith("agent-")) throw new Error("not mine");
    }
    onStart = () => void started.push(this.id);
  }
  const server = await serve(context, [events(following + startOf("other", "8") + startOf("agent-1", "9"), "silence")]);
  const { begun, failures } = follow(context, server.url, { Box });
  await begun;
  await until("the right one is told", () => started.length === 1);
  assert.deepEqual(failures, ['onStart of sandbox "other" (Box): not mine']);
});

test("nothing begins after the signal, and a closed connection is asked no more", async (context) => {
  const started: string[] = [];
  let end = () => {};
  class Box extends Sandbox {
    async onStart() {
      started.push(this.id);
      await new Promise<void>((resolve) => (end = resolve));
    }
  }
  const stream = events(following + startOf("one", "8") + startOf("one", "9"), "silence");
  const server = await serve(context, [stream]);
  const first = follow(context, server.url, { Box });
  await until("the first has begun", () => started.length === 1);
  first.end.abort();
  end();
  const second = follow(context, server.url, { Box });
  await second.begun;
  second.connection.close();
  await until("the second's first has begun", () => started.length === 2);
  const third = follow(context, server.url, { Box });
  third.connection.close();
  await third.begun;
  assert.deepEqual([started, second.failures, third.failures], [["one", "one"], [], []]);
});
