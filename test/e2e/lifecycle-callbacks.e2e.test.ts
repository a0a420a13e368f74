import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import {
  connect,
  type Connection,
  followLifecycle,
  getSandbox,
  Sandbox,
  type SandboxClass,
  SandboxError,
  type SandboxNamespace,
} from "../../sdk/index.ts";
import { App } from "../support/app.ts";
import { TestDaemon } from "../support/daemon.ts";
import { Relay } from "../support/relay.ts";
import { runProgram } from "../support/program.ts";
import { until } from "../support/until.ts";
import { read, runRowOf } from "../support/warm-pool.ts";

const house = resolve(import.meta.dirname, "../..");
let daemon: TestDaemon;
let connection: Connection;

before(async () => {
  daemon = await TestDaemon.start();
  connection = daemon.connect();
});

after(() => daemon[Symbol.asyncDispose]());

/** What happened, in words, in the order in which it was told. */
type Story = string[];

/** A class that writes down what it is told; `callbacks` are done after the line is written. */
function telling(story: Story): SandboxClass {
  return class extends Sandbox {
    onStart() {
      story.push(`${this.id} start`);
    }
    onStop({ exitCode, reason }: { exitCode: number; reason: string }) {
      story.push(`${this.id} stop ${exitCode} ${reason}`);
    }
    onError(error: unknown) {
      story.push(`${this.id} error ${SandboxError.is(error) ? error.message : String(error)}`);
    }
    onActivityExpired() {
      story.push(`${this.id} expired`);
    }
  };
}

/** An app: it follows what it binds until it is disposed. */
async function app<T extends Record<string, SandboxClass>>(classes: T, at = connection) {
  const end = new AbortController();
  const failures: string[] = [];
  const bindings = Object.fromEntries(
    Object.entries(classes).map(([name, sandboxClass]) => [name, { connection: at, sandboxClass }]),
  ) as Record<keyof T & string, SandboxNamespace>;
  const onCallbackError = (error: unknown, where: string) =>
    failures.push(`${where}: ${error instanceof Error ? error.message : String(error)}`);
  await followLifecycle({ bindings, signal: end.signal, onCallbackError });
  return { ...bindings, failures, end: () => end.abort(), [Symbol.dispose]: () => end.abort() };
}

const about = (story: Story, id: string) => story.filter((line) => line.startsWith(`${id} `));

test("the callbacks of a class are told of its sandboxes, in order, with the sandbox as this", async () => {
  const seen: unknown[] = [];
  class Greeter extends Sandbox {
    greeting = "hello";
    async onStart() {
      seen.push(this instanceof Greeter && this.id, (await this.exec(`echo ${this.greeting}`)).stdout);
      await this.setLabels({ greeted: "yes" });
    }
    onStop(end: { exitCode: number; reason: string }) {
      seen.push(end);
    }
  }
  using env = await app({ Greeter });
  const box = getSandbox(env.Greeter, "greeted", { sleepAfter: "1h" });
  await box.exec("true");
  await until("it was greeted", async () => (await box.info()).labels["greeted"] === "yes");
  const info = await box.info();
  assert.deepEqual([info.className, info.sleepAfterMs], ["Greeter", 3_600_000]);
  await box.stop();
  await until("its end was told", () => seen.length === 3);
  await box.exec("true"); // a wake is a start
  await until("the wake was told", () => seen.length === 5);
  assert.deepEqual(seen, ["greeted", "hello\n", { exitCode: 0, reason: "asked" }, "greeted", "hello\n"]);
  assert.deepEqual(env.failures, []);
});

test("a visit that wakes a sandbox waits for the server that onStart starts", async () => {
  class Site extends Sandbox {
    async onStart() {
      await this.exec("sleep 1");
      await this.startProcess("python3 -m http.server 8000");
    }
  }
  using env = await app({ Site });
  const box = getSandbox(env.Site, "site");
  const { url } = await box.exposePort(8000);
  await box.stop();
  assert.equal((await fetch(url)).status, 200);
  assert.deepEqual(env.failures, []);
  await box.destroy();
});

test("a sandbox of another class, or of none, is nobody's here", async () => {
  const story: Story = [];
  using env = await app({ Mine: telling(story) });
  class Theirs extends Sandbox {}
  await getSandbox({ connection, sandboxClass: Theirs }, "theirs").start();
  await getSandbox(connection, "plain").start();
  await getSandbox(env.Mine, "mine").start();
  await until("mine is told", () => story.length === 1);
  assert.deepEqual(story, ["mine start"]);
  assert.equal((await getSandbox(connection, "plain").info()).className, undefined);
  assert.equal((await getSandbox(connection, "theirs").info()).className, "Theirs");
  // the name is the binding's, also for one that another program uses
  await getSandbox(connection, "mine").stop();
  await until("its stop is told", () => story.length === 2);
});

test("an app that is started again is told of the sandboxes it made before", async () => {
  const story: Story = [];
  using first = await app({ Returning: telling(story) });
  await getSandbox(first.Returning, "returning").start();
  await until("its start is told", () => story.length === 1);
  first.end();
  const later: Story = [];
  using _ = await app({ Returning: telling(later) });
  await getSandbox(connection, "returning").stop();
  await until("its end is told", () => later.length === 1);
  assert.deepEqual([story, later], [["returning start"], ["returning stop 0 asked"]]);
});

test("a callback that throws, rejects or hangs is told and harms nobody else", async () => {
  const story: Story = [];
  class Careless extends Sandbox {
    async onStart() {
      if (this.id === "hanging") await new Promise(() => {});
      if (this.id === "rejecting") throw new Error("rejected");
      story.push(`${this.id} start`);
    }
    onStop() {
      story.push(`${this.id} stop`);
      if (this.id === "throwing") throw new Error("thrown");
    }
  }
  using env = await app({ Careless });
  for (const id of ["hanging", "rejecting", "throwing", "well"]) {
    await getSandbox(env.Careless, id).exec("true"); // not delayed by what hangs
    await getSandbox(env.Careless, id).stop();
  }
  await until("the last is told", () => story.includes("well stop"));
  await until("all failures are told", () => env.failures.length === 2);
  assert.deepEqual(env.failures, [
    'onStart of sandbox "rejecting" (Careless): rejected',
    'onStop of sandbox "throwing" (Careless): thrown',
  ]);
  assert.deepEqual(about(story, "hanging"), []);
  assert.deepEqual(about(story, "rejecting"), ["rejecting stop"]);
});

test("a destroyed sandbox's end is told, with its name", async () => {
  const story: Story = [];
  using env = await app({ Doomed: telling(story) });
  const box = getSandbox(env.Doomed, "doomed");
  await box.start();
  await box.destroy();
  await until("its end is told", () => story.length === 2);
  assert.deepEqual(story, ["doomed start", "doomed stop 0 asked"]);
});

test("an end that nobody asked for is an error first: memory, and a lost agent", async () => {
  const story: Story = [];
  const details: unknown[] = [];
  class Fragile extends telling(story) {
    override async onError(error: unknown) {
      await super.onError?.(error);
      if (SandboxError.is(error)) details.push(error.code, error.details["reason"], error.suggestion);
    }
  }
  using env = await app({ Fragile });
  const hungry = getSandbox(env.Fragile, "hungry", { instance: "lite" });
  const eaten = await hungry.exec("python3", ["-c", "x = bytearray(600 * 1024 * 1024)"]);
  assert.equal(eaten.reason, "memory");
  // the kernel chooses the agent last; here we do
  process.kill(runRowOf(daemon.dataDir, "hungry")!.pid, "SIGKILL");
  await until("its end is told", () => about(story, "hungry").length === 3);
  assert.deepEqual(story, [
    "hungry start",
    'hungry error Cannot go on in sandbox "hungry": it ran out of memory',
    "hungry stop 137 memory",
  ]);
  const lost = getSandbox(env.Fragile, "lost");
  await lost.start();
  process.kill(runRowOf(daemon.dataDir, "lost")!.pid, "SIGKILL");
  await until("its end is told", () => about(story, "lost").length === 3);
  assert.equal(about(story, "lost").at(-1), "lost stop 137 agent-lost");
  assert.deepEqual(
    [details[0], details[1], details[4]],
    ["SANDBOX_UNAVAILABLE", "memory", "agent-lost"],
    String(details),
  );
});

test("a start that fails is an error, once for a while however often it is tried", async () => {
  const story: Story = [];
  using env = await app({ Failing: telling(story) });
  const box = getSandbox(env.Failing, "failing");
  await box.start();
  await box.stop();
  await until("its end is told", () => story.length === 2);
  // what no sandbox may bring along to its start
  const [{ key } = {}] = read(daemon.dataDir, "SELECT key FROM sandboxes WHERE name = ?", "failing");
  const dev = join(daemon.dataDir, "pool/disks", String(key), "upper/dev");
  await writeFile(dev, "");
  for (let attempt = 0; attempt < 3; attempt++) await assert.rejects(box.start());
  await rm(dev);
  await box.start();
  await until("it starts", () => story.at(-1) === "failing start");
  assert.equal(story.length, 4, story.join("\n"));
  assert.match(story[2] ?? "", /^failing error Cannot /);
});

test("a daemon killed and started again loses nothing and repeats nothing, nor does a broken connection", async () => {
  const story: Story = [];
  using relay = await Relay.to(daemon.url);
  using env = await app({ Steady: telling(story) });
  const cut: Story = [];
  using far = await app({ Steady: telling(cut) }, connect({ url: relay.url, token: daemon.token }));
  const expected: Story = [];
  for (let round = 0; round < 4; round++) {
    const box = getSandbox(env.Steady, `steady-${round}`);
    relay.break();
    const daemonDies = round % 2 === 1;
    await box.start();
    expected.push(`steady-${round} start`);
    if (daemonDies) await daemon.kill("SIGKILL"); // at once: the line of the start must be there
    if (daemonDies) await daemon.up();
    await box.stop();
    expected.push(`steady-${round} stop 0 asked`);
    relay.mend();
  }
  for (const [told, whose] of [
    [story, "direct"],
    [cut, "cut"],
  ] as const) {
    await until(`all is told (${whose})`, () => told.length >= expected.length);
    assert.deepEqual([...told].sort(), [...expected].sort(), whose);
    for (let round = 0; round < 4; round++) {
      assert.deepEqual(about(told, `steady-${round}`), about(expected, `steady-${round}`), whose);
    }
  }
  assert.deepEqual([env.failures, far.failures], [[], []]);
});

test("a run that died with the daemon is told by the next one", async () => {
  const story: Story = [];
  using env = await app({ Buried: telling(story) });
  await getSandbox(env.Buried, "buried").start();
  const { pid } = runRowOf(daemon.dataDir, "buried")!;
  await daemon.kill("SIGKILL");
  process.kill(pid, "SIGKILL");
  await daemon.up();
  await until("its end is told", () => story.length === 3);
  assert.deepEqual(story, [
    "buried start",
    'buried error Cannot go on in sandbox "buried": its agent ended unexpectedly',
    "buried stop 137 agent-lost",
  ]);
});

test("a sandbox that is due to sleep is told, and sleeps unless it is used", async () => {
  const story: Story = [];
  class Idler extends telling(story) {
    override async onActivityExpired() {
      await super.onActivityExpired?.();
      const times = about(story, this.id).filter((line) => line.endsWith("expired")).length;
      if (this.id === "used" && times === 1) await this.exec("true");
      if (this.id === "kept") await this.setKeepAlive(true);
      if (this.id === "stopped") await this.stop();
      if (this.id === "stuck") await new Promise(() => {});
    }
  }
  using env = await app({ Idler });
  const box = (id: string) => getSandbox(env.Idler, id, { sleepAfter: 1 });
  const ids = ["used", "kept", "stopped", "stuck", "left"];
  await Promise.all(ids.map((id) => box(id).start()));
  const ended = (id: string) => about(story, id).some((line) => line.includes(" stop "));
  await until("the others sleep", async () => ended("stopped") && ended("left") && ended("used"), 40_000);
  assert.deepEqual(about(story, "stopped"), ["stopped start", "stopped expired", "stopped stop 0 asked"]);
  assert.deepEqual(about(story, "left"), ["left start", "left expired", "left stop 0 idle"]);
  // used once, it was idle once more and then slept
  assert.deepEqual(about(story, "used"), ["used start", "used expired", "used expired", "used stop 0 idle"]);
  assert.deepEqual(about(story, "kept"), ["kept start", "kept expired"]);
  assert.equal((await box("kept").info()).state, "running");
  // its callback hangs, so nothing more of it is told; but it sleeps
  await until("the stuck one sleeps", async () => (await getSandbox(connection, "stuck").info()).state === "asleep");
  await getSandbox(connection, "kept").setKeepAlive(false);
  env.end();
  await until(
    "without a follower it sleeps",
    async () => (await getSandbox(connection, "kept").info()).state === "asleep",
  );
  assert.deepEqual(about(story, "kept"), ["kept start", "kept expired"]);
});

test("a hundred sandboxes at once are told each its own story", async () => {
  const story: Story = [];
  using env = await app({ Many: telling(story) });
  const ids = Array.from({ length: 100 }, (_, n) => `many-${n}`);
  await Promise.all(
    ids.map(async (id) => {
      const box = getSandbox(env.Many, id, { instance: "lite" });
      await box.start();
      await box.stop();
      await box.destroy();
    }),
  );
  await until("all is told", () => story.length >= ids.length * 2, 60_000);
  for (const id of ids) assert.deepEqual(about(story, id), [`${id} start`, `${id} stop 0 asked`]);
  assert.deepEqual(env.failures, []);
});

test("what cannot name a class is refused at the edge, and before", async () => {
  const headers = { authorization: `Bearer ${daemon.token}`, "content-type": "application/json" };
  for (const name of ["", "a b", "1st", "x".repeat(65), "é", "a-b", "__proto__ ", "a\nb", "../x"]) {
    const put = { method: "PUT", headers, body: JSON.stringify({ className: name }) };
    assert.equal((await fetch(`${daemon.url}/v1/sandboxes/hostile`, put)).status, 400, JSON.stringify(name));
    const query = new URLSearchParams({ classes: name });
    assert.equal((await fetch(`${daemon.url}/v1/lifecycle?${query}`, { headers })).status, 400, JSON.stringify(name));
    const bindings = { [name]: { connection, sandboxClass: telling([]) } };
    const options = { bindings, signal: AbortSignal.abort(), onCallbackError: () => {} };
    await assert.rejects(followLifecycle(options), { code: "VALIDATION_FAILED" });
  }
  const many = Array.from({ length: 101 }, (_, n) => `C${n}`).join(",");
  assert.equal((await fetch(`${daemon.url}/v1/lifecycle?classes=${many}`, { headers })).status, 400);
  assert.equal((await fetch(`${daemon.url}/v1/lifecycle`, { headers })).status, 400);
  const wrong = { ...headers, "last-event-id": "1; DROP TABLE journal" };
  assert.equal((await fetch(`${daemon.url}/v1/lifecycle?classes=A`, { headers: wrong })).status, 400);
  assert.equal((await fetch(`${daemon.url}/v1/lifecycle?classes=A`)).status, 401);
  // a name that is one of every object's
  const story: Story = [];
  using env = await app({ constructor: telling(story), __proto_: telling(story) });
  await getSandbox(env.constructor, "named-constructor").start();
  await until("its start is told", () => story.length === 1);
});

test("callbacks that nobody would call are refused, with the remedy", async () => {
  const box = getSandbox({ connection, sandboxClass: telling([]) }, "nobodys");
  await assert.rejects(box.exec("true"), { code: "NOT_SUPPORTED", suggestion: /atoll run.*followLifecycle/ });
  await assert.rejects(box.info(), { code: "NOT_SUPPORTED" });
});

test("a follower that stops reading costs the daemon nothing, keeps nobody awake, and goes on where it was", async () => {
  const story: Story = [];
  using env = await app({ Unread: telling(story) });
  const { url, token } = daemon;
  const call = request(`${url}/v1/lifecycle?classes=Unread`, { headers: { authorization: `Bearer ${token}` } });
  call.end();
  const [response] = (await once(call, "response")) as [IncomingMessage];
  const box = getSandbox(env.Unread, "unread", { sleepAfter: 1 });
  await box.start();
  await until("it sleeps", async () => (await box.info()).state === "asleep");
  let text = "";
  response.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await until("it reads what happened", () => text.includes('"stop"'));
  const types = [...text.matchAll(/"type":"(\w+)"/g)].map(([, type]) => type);
  assert.deepEqual(types, ["following", "start", "activityExpired", "stop"]);
  const ids = [...text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
  call.destroy();
  const headers = { authorization: `Bearer ${token}`, "last-event-id": String(ids[1]) };
  const again = await fetch(`${url}/v1/lifecycle?classes=Unread`, { headers });
  const reader = again.body!.getReader();
  let rest = "";
  await until("the rest is told again", async () => {
    rest += Buffer.from((await reader.read()).value ?? []).toString();
    return rest.includes('"stop"');
  });
  assert.deepEqual(
    [...rest.matchAll(/"type":"(\w+)"/g)].map(([, type]) => type),
    ["activityExpired", "stop"],
  );
  await reader.cancel();
});

test("an app's classes are told by atoll run, under the names by which they are exported", async () => {
  const program = join(house, "test/fixtures/programs/callbacks.ts");
  await using first = await App.start(daemon, program);
  const story = async (app: App) => (await (await app.fetch("/story")).json()) as string[];
  await first.text("/use?id=hosted");
  await until("its start is told", async () => (await story(first)).length === 1);
  assert.equal((await getSandbox(connection, "hosted").info()).className, "Agent");
  await first.text("/use?id=careless");
  await until("the other's start is told", async () => (await story(first)).length === 2);
  await first.text("/stop?id=careless");
  await until("the error is told", () => first.stderr.includes("what a callback throws"));
  assert.match(first.stderr, /Error in onStop of sandbox "careless" \(Agent\):.*\n.*callbacks\.ts:14/);
  // started again it is told of what it made before
  await first[Symbol.asyncDispose]();
  await using second = await App.start(daemon, program);
  await getSandbox(connection, "hosted").stop();
  await until("its end is told", async () => (await story(second)).length === 1);
  assert.deepEqual(await story(second), ["hosted stop 0 asked"]);
  // a callback under way is waited for
  await second.text("/use?id=slow");
  await until("the start is told", async () => (await story(second)).length === 2);
  await second.text("/stop?id=slow");
  await until("the end is told", async () => (await story(second)).length === 3);
  second.kill("SIGTERM");
  assert.deepEqual(await second.ended(), { code: 0, signal: null });
  assert.match(second.stderr, /the slow callback has ended/);
});

test("the page's program runs as it stands there", async () => {
  const page = await readFile(join(house, "docs/lifecycle.md"), "utf8");
  const dir = await mkdtemp(join(tmpdir(), "atoll-page-"));
  try {
    await writeFile(join(dir, "program.ts"), /```ts\n([^]*?)```/.exec(page)?.[1] ?? "");
    const env = { ...process.env, ATOLL_URL: daemon.url, ATOLL_TOKEN: daemon.token };
    const words = [join(house, "cli/main.ts"), "run", join(dir, "program.ts")];
    const { code, stdout, stderr } = await runProgram(process.execPath, words, { cwd: house, env });
    assert.equal(code, 0, stderr);
    assert.equal(stdout, "callbacks is awake\ncallbacks sleeps: asked, 0\n");
  } finally {
    await rm(dir, { recursive: true });
  }
});
