import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { after, before, test } from "node:test";
import { type Connection, connect, getSandbox, type Sandbox, SandboxError, type Terminal } from "../../sdk/index.ts";
import type { z } from "zod";
import type { TerminalInfo, Ticket } from "../../protocol/terminal.ts";
import { TestDaemon } from "../support/daemon.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { Relay } from "../support/relay.ts";
import { until } from "../support/until.ts";
import { urlOf, Viewer } from "../support/viewer.ts";

let daemon: TestDaemon;
let connection: Connection;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  connection = daemon.connect();
  box = getSandbox(connection, "box");
  await box.start();
});

after(async () => {
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
});

const replayBytes = 256 * 1024;
const look = (terminal: string, query: Record<string, string | number> = {}) =>
  Viewer.open(daemon, { sandbox: "box", terminal, query });
const json = async <T>(response: Promise<Response>) => (await (await response).json()) as T;
const countLines = (text: string) => [...text.matchAll(/^n(\d+)\r$/gm)].map(([, number]) => Number(number));
const ascending = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

/** Everything that a terminal printed to the end, and where it said it was. */
async function readAll(terminal: Terminal): Promise<{ text: string; gaps: number }> {
  const chunks: Uint8Array[] = [];
  let expected: number | undefined;
  let gaps = 0;
  for await (const { offset, data } of terminal.output) {
    if (expected !== undefined && offset !== expected) gaps++;
    expected = offset + data.length;
    chunks.push(data);
  }
  return { text: Buffer.concat(chunks).toString(), gaps };
}

test("a program has a terminal: a tty with a size, colours, job control, and an end that is told", async () => {
  const terminal = await box.createTerminal({ cols: 132, rows: 43 });
  const reading = readAll(terminal);
  terminal.write("tty; stty size; echo $TERM $COLORTERM; sleep 100 & jobs; kill %1; echo $((6*7))ü; exit 7\r");
  assert.deepEqual(await terminal.exited, { code: 7 });
  const { text, gaps } = await reading;
  assert.equal(gaps, 0);
  assert.match(text, /\/dev\/pts\/\d+\r\n43 132\r\nxterm-256color truecolor\r\n/);
  assert.match(text, /\[1\]\+ +Running/);
  assert.match(text, /42ü\r\n/);
  assert.doesNotMatch(text, /job control|cannot set terminal/);
});

test("a command without a shell; an end by a signal says which; keys reach the foreground program", async () => {
  const terminal = await box.createTerminal({ command: ["sleep", "1000"] });
  terminal.write("\x03");
  assert.deepEqual(await terminal.exited, { code: 130, signal: "SIGINT" });
  const text = await box.createTerminal({ command: "stty -echo; read line; echo got:$line; exit 3" });
  const reading = readAll(text);
  text.write("hello\r");
  assert.deepEqual(await text.exited, { code: 3 });
  assert.match((await reading).text, /got:hello\r\n$/);
});

test("each terminal has its own shell, directory and environment; those of a session start where it is", async () => {
  await box.exec("mkdir -p /tmp/one /tmp/two /tmp/of-session");
  const session = await box.createSession({ id: "s1", cwd: "/tmp/of-session" });
  const one = await box.createTerminal({ cwd: "/tmp/one", env: { WHO: "first", HOME: "/tmp" } });
  const two = await box.createTerminal({ cwd: "/tmp/two", user: "nobody" });
  const three = await session.createTerminal({ command: "pwd; exit 0" });
  const readings = [readAll(one), readAll(two), readAll(three)];
  one.write("cd /; x=1; echo $PWD-$WHO-$HOME-$x-$$; exit\r");
  two.write("echo $PWD-$WHO-$(id -un)-$x-$$; exit\r");
  const [first, second, third] = await Promise.all(readings);
  const said = [/\/-first-\/tmp-1-(\d+)\r/.exec(first!.text), /\/tmp\/two--nobody--(\d+)\r/.exec(second!.text)];
  assert(said[0] && said[1] && said[0][1] !== said[1][1], `${first!.text}\n${second!.text}`);
  assert.equal(third!.text, "/tmp/of-session\r\n");
  assert.equal((await box.exec("pwd")).stdout, "/workspace\n");
});

test("the wire: replay, ready, what comes, exit; the terminal of a session has its name", async () => {
  using first = await look("default");
  assert.equal(first.order[0], "ready"); // it was begun for this viewer: there is nothing to show again
  first.type("echo re''played\r");
  await first.sees("replayed");
  using second = await look("default");
  assert.deepEqual(second.order.slice(0, 2), ["bytes", "ready"]);
  assert.match(second.text, /replayed\r\n/);
  second.type("echo li''ve; exit 5\r");
  await Promise.all([first, second].map((viewer) => viewer.sees("live")));
  for (const viewer of [first, second]) {
    await until("the socket is closed", () => viewer.closed !== undefined);
    assert.deepEqual([viewer.closed, viewer.messages], [1000, [{ type: "ready" }, { type: "exit", code: 5 }]]);
    assert.equal(viewer.order.at(-1), "exit");
  }
  assert.deepEqual(first.content, second.content);
  // it has ended: who comes now gets a new one
  using third = await look("default", { shell: "/bin/sh" });
  third.type("echo $0 again; kill -9 $$\r");
  await until("it is told", () => third.find("exit"));
  assert.match(third.text, /\/bin\/sh again\r\n/);
  assert.doesNotMatch(third.text, /live/);
  assert.deepEqual(third.messages.at(-1), { type: "exit", code: 137, signal: "SIGKILL" });
});

test("who comes late sees the last 256 KiB, to the byte", async () => {
  const terminal = await box.createTerminal({ command: "seq -f n%.0f 1 200000; sleep 1000" });
  await until("all is printed", async () => {
    using viewer = await look(terminal.id);
    return viewer.text.endsWith("n200000\r\n");
  });
  using viewer = await look(terminal.id, { offsets: "true" });
  assert.deepEqual(viewer.order, ["replay", "bytes", "ready"]);
  assert(viewer.bytes >= replayBytes && viewer.bytes < 2 * replayBytes, `${viewer.bytes} bytes`);
  const lines = countLines(viewer.text);
  assert.deepEqual(lines, ascending(lines[0]!, 200_000));
  const { life, offset } = viewer.find("replay")!;
  // with its place, a viewer gets what follows, and no byte of what it has
  const seen = viewer.bytes - 9;
  using later = await look(terminal.id, { offsets: "true", life, after: offset + seen });
  assert.equal(later.text, "n200000\r\n");
  assert.deepEqual(later.find("replay"), { type: "replay", life, offset: offset + seen });
  // of another life, or a place that is not there: everything
  for (const place of [
    { life: "other", after: offset + seen },
    { life, after: 1e12 },
    { life, after: 0 },
  ]) {
    using whole = await look(terminal.id, { offsets: "true", ...place });
    assert.deepEqual([whole.find("replay"), whole.bytes], [{ type: "replay", life, offset }, viewer.bytes]);
  }
  await terminal.close();
});

test("many terminals, each with several viewers who all see the same, whoever types", async () => {
  const ids = Array.from({ length: 12 }, (_, at) => `many-${at}`);
  const groups = await Promise.all(ids.map((id) => Promise.all([look(id), look(id), look(id)])));
  groups.forEach((viewers, at) => viewers[at % 3]!.type(`echo of''${at}-; exit ${at}\r`));
  for (const [at, viewers] of groups.entries()) {
    for (const viewer of viewers) {
      const { code } = await until("the exit is told", () => viewer.find("exit"));
      assert.equal(code, at);
      assert.match(viewer.text, new RegExp(`of${at}-\r\n`));
    }
  }
});

test("a size reaches the program, the last one counts, and nonsense changes nothing", async () => {
  using viewer = await look("sized", { cols: 100, rows: 30 });
  // a shell may lose a signal that comes while its trap runs, so the trap only takes a note
  const tell = "if test $new; then new=; stty size; fi";
  const program = `trap new=1 WINCH; stty size; echo started; while :; do sleep 0.02; ${tell}; done`;
  viewer.type(`exec sh -c '${program}'\r`);
  await viewer.sees(/30 100\r\nstarted/);
  using other = await look("sized");
  other.tell({ type: "resize", cols: 90, rows: 20 });
  await viewer.sees(/20 90\r/);
  const nonsense = [0, -1, 1.5, 100_000, "x", null].map((cols) => ({ type: "resize", cols, rows: 20 }));
  for (const message of [...nonsense, "{", "[]", '"', "", { type: "else" }, { type: "resize" }]) other.tell(message);
  other.tell({ type: "resize", cols: 1, rows: 1_000 });
  await viewer.sees(/1000 1\r/);
  assert.equal(viewer.text.match(/^\d+ \d+\r$/gm)?.length, 3);
  viewer.type("\x03");
});

test("closing the socket leaves the shell running, also while it prints", async () => {
  const first = await look("left");
  first.type("x=kept; (sleep 0.1; echo mean''while) & echo $$:pid\r");
  await first.sees(/\d+:pid/);
  const pid = /(\d+):pid\r/.exec(first.text)![1];
  await first.close();
  using second = await look("left");
  second.type("echo $x-$$\r");
  await second.sees(`kept-${pid}`);
  await second.sees("meanwhile");
  second.type("yes\r");
  await second.sees(/(y\r\n){100}/);
  second.socket.terminate();
  using third = await look("left");
  third.type("\x03");
  third.type("echo still $x\r");
  await third.sees("still kept");
  const { terminals } = await json<{ terminals: TerminalInfo[] }>(call("GET", "/v1/sandboxes/box/terminals"));
  const mine = terminals.find(({ id }) => id === "left");
  assert.deepEqual([mine?.pid, mine?.exitCode], [Number(pid), undefined]);
  assert.equal((await call("DELETE", "/v1/sandboxes/box/terminals/left")).status, 200);
  assert.equal((await until("the end is told", () => third.find("exit"))).signal, "SIGHUP");
  assert.equal((await call("DELETE", "/v1/sandboxes/box/terminals/never")).status, 404);
});

function call(method: string, path: string, body?: unknown): Promise<Response> {
  return fetch(`${daemon.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${daemon.token}`, "content-type": "application/json" },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
}

test("a viewer that does not read slows nobody, and costs bounded memory; the daemon stays calm", async () => {
  const memoryKiB = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${daemon.pid}/status`, "utf8"))![1]);
  using reader = await look("loud");
  const blind = await Promise.all(Array.from({ length: 8 }, () => look("loud", { offsets: "true" })));
  for (const viewer of blind) viewer.socket.pause();
  const before = memoryKiB();
  reader.type("yes 0123456789012345678901234567890123456789\r");
  let most = 0;
  await until(
    "much has passed",
    async () => {
      most = Math.max(most, memoryKiB());
      assert.equal((await box.exec("echo", ["calm"])).stdout, "calm\n");
      return reader.bytes > 100e6;
    },
    120_000,
  );
  // 8 × (256 KiB here, as much in sockets), and what passes through on its way to the one who reads
  assert(most - before < 96 * 1024, `grew by ${most - before} KiB`);
  reader.type("\x03");
  reader.type("echo; echo do''ne\r");
  await reader.sees(/done\r\n/);
  // who reads again is told what is gone, and sees the rest
  for (const viewer of blind) viewer.socket.resume();
  await Promise.all(blind.map((viewer) => viewer.sees(/done\r\n/)));
  for (const viewer of blind) {
    assert(viewer.messages.filter(({ type }) => type === "replay").length > 1);
    assert(viewer.bytes < 20e6, `${viewer.bytes} bytes`);
    viewer.socket.terminate();
  }
});

test("a terminal in which nobody looks is loud at no one's cost", async () => {
  const terminal = await box.createTerminal({ command: ["yes"] });
  terminal.detach();
  await assert.rejects(terminal.exited, { code: "ABORTED" });
  assert.equal((await box.exec("echo", ["calm"])).stdout, "calm\n");
  using viewer = await look(terminal.id);
  assert(viewer.bytes <= 2 * replayBytes);
  await (await box.createTerminal({ id: terminal.id })).close();
});

test("a cut line: nothing is doubled, nothing is lost, and what is typed meanwhile arrives", async () => {
  using relay = await Relay.to(daemon.url);
  const far = getSandbox(connect({ url: relay.url, token: daemon.token }), "box");
  const terminal = await far.createTerminal({
    command: "stty -echo; for i in $(seq 1 600); do echo n$i; sleep 0.01; done; read line; echo $line; exit 4",
  });
  const reading = readAll(terminal);
  for (let cuts = 1; cuts <= 5; cuts++) {
    const { made } = relay;
    relay.cut();
    await until("it is connected again", () => relay.made > made + 1);
  }
  const { made } = relay;
  relay.break();
  await until("the loss is noticed", () => relay.made > made);
  terminal.write("typed in the dark\r");
  relay.mend();
  assert.deepEqual(await terminal.exited, { code: 4 });
  const { text, gaps } = await reading;
  assert.equal(gaps, 0);
  assert.deepEqual(countLines(text), ascending(1, 600));
  assert.match(text, /typed in the dark\r\n$/);
});

test("kill -9 of the daemon and its return: nothing is doubled, nothing is lost", async () => {
  const command = "stty -echo; for i in $(seq 1 400); do echo n$i; sleep 0.01; done; read line; echo $line; exit 4";
  const terminal = await box.createTerminal({ id: "survivor", command });
  const reading = readAll(terminal);
  using viewer = await look("survivor", { offsets: "true" });
  const { life, offset } = viewer.find("replay")!;
  for (let times = 0; times < 2; times++) {
    await viewer.sees(/n\d/);
    await daemon.kill("SIGKILL");
    await daemon.up();
    terminal.write("x");
  }
  await until("the socket is closed", () => viewer.closed !== undefined);
  using again = await look("survivor", { offsets: "true", life, after: offset + viewer.bytes });
  assert.equal(again.find("replay")?.offset, offset + viewer.bytes);
  terminal.write("yz\r");
  assert.deepEqual(await terminal.exited, { code: 4 });
  const { text, gaps } = await reading;
  assert.deepEqual([countLines(text), gaps], [ascending(1, 400), 0]);
  assert.match(text, /xxyz\r\n$/);
  await until("the end is told", () => again.find("exit"));
  assert.equal(viewer.text + again.text, text);
});

test("what asks for no WebSocket is 426", async () => {
  const response = await call("GET", "/v1/sandboxes/box/terminals/default/socket");
  assert.deepEqual([response.status, response.headers.get("upgrade")], [426, "websocket"]);
  const request = new Request("https://app.example.com/terminal");
  const answer = await box.terminal(request);
  assert.deepEqual([answer.status, answer.headers.get("upgrade")], [426, "websocket"]);
  const upgrading = new Request(request, { headers: { upgrade: "websocket" } });
  await assert.rejects(box.terminal(upgrading), { code: "NOT_SUPPORTED" });
});

/** How a refused WebSocket was answered. */
function refusalOf(url: string, headers: Record<string, string> = {}) {
  const upgrade = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" };
  const asked = httpRequest(url.replace(/^ws/, "http"), {
    headers: { ...upgrade, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", ...headers },
  }).end();
  return new Promise<{ status: number | undefined; code: string }>((resolve, reject) => {
    asked.on("error", reject);
    asked.on("upgrade", (_, socket) => {
      socket.destroy();
      resolve({ status: 101, code: "" });
    });
    asked.on("response", async (response) => {
      const body = Buffer.concat(await response.toArray()).toString();
      resolve({ status: response.statusCode, code: (JSON.parse(body) as { code: string }).code });
    });
  });
}

test("a ticket opens one terminal once, for pages of its origin, and a token in a URL opens nothing", async () => {
  const origin = "https://app.example.com";
  const url = await box.createTerminalUrl({ cols: 77, rows: 11, sessionId: "s1", origin });
  assert.doesNotMatch(url, new RegExp(daemon.token));
  const unauthorized = { status: 401, code: "UNAUTHORIZED" };
  using viewer = new Viewer(url, { origin });
  await until("the terminal is ready", () => viewer.order.includes("ready"));
  viewer.type("stty size; pwd\r");
  await viewer.sees(/11 77\r\n\/tmp\/of-session\r\n/);
  assert.deepEqual(await refusalOf(url, { origin }), unauthorized);
  // a refused use is a use
  const other = await box.createTerminalUrl({ origin });
  assert.deepEqual(await refusalOf(other, { origin: "https://evil.example.com" }), unauthorized);
  assert.deepEqual(await refusalOf(other, { origin }), unauthorized);
  const elsewhere = await box.createTerminalUrl();
  assert.deepEqual(await refusalOf(elsewhere.replace("/terminals/default/", "/terminals/other/")), unauthorized);
  assert.deepEqual(await refusalOf((await box.createTerminalUrl()).replace("/box/", "/box2/")), unauthorized);
  const { ticket, expiresAt } = await json<z.infer<typeof Ticket>>(call("POST", "/v1/sandboxes/box/tickets", {}));
  assert(expiresAt - Date.now() > 30_000 && expiresAt - Date.now() <= 60_000);
  assert.deepEqual(await refusalOf(urlOf(daemon, { sandbox: "box", terminal: "s1", query: { ticket } })), {
    status: 101,
    code: "",
  });
  const plain = { sandbox: "box", terminal: "s1" };
  assert.deepEqual(await refusalOf(urlOf(daemon, plain)), unauthorized);
  assert.deepEqual(await refusalOf(urlOf(daemon, plain), { authorization: "Bearer wrong" }), unauthorized);
  assert.equal((await refusalOf(urlOf(daemon, { ...plain, query: { token: daemon.token } }))).status, 400);
  assert.deepEqual(await refusalOf(urlOf(daemon, plain), { cookie: `token=${daemon.token}` }), unauthorized);
});

test("what makes no sense is refused, before anything starts", async () => {
  const headers = { authorization: `Bearer ${daemon.token}` };
  const refused = async (terminal: string, query: Record<string, string | number>) =>
    refusalOf(urlOf(daemon, { sandbox: "fresh", terminal, query }), headers);
  for (const query of [{ cols: 0 }, { rows: -1 }, { cols: 1_001 }, { cols: "x" }, { start: "maybe" }, { else: 1 }]) {
    assert.deepEqual(await refused("default", query as never), { status: 400, code: "VALIDATION_FAILED" });
  }
  assert.deepEqual(await refused("a%20b", {}), { status: 400, code: "VALIDATION_FAILED" });
  assert.deepEqual(await refused("%ff", {}), { status: 400, code: "VALIDATION_FAILED" });
  const bad = { sandbox: "-bad-", terminal: "default" };
  assert.deepEqual(await refusalOf(urlOf(daemon, bad), headers), { status: 400, code: "INVALID_SANDBOX_ID" });
  await assert.rejects(getSandbox(connection, "fresh").info(), { code: "SANDBOX_NOT_FOUND" });
  await assert.rejects(box.createTerminal({ cols: 0 }), { code: "VALIDATION_FAILED" });
  await assert.rejects(box.createTerminal({ rows: 1e6 }), { code: "VALIDATION_FAILED" });
  await assert.rejects(box.createTerminal({ cwd: "/no/such" }), { code: "FILE_NOT_FOUND" });
  await assert.rejects(box.createTerminal({ command: [""] }), { code: "INVALID_COMMAND" });
  await assert.rejects(box.createTerminal({ user: "nobody-of-that-name" }), SandboxError);
  await assert.rejects(box.createTerminal({ id: "a b" }), { code: "VALIDATION_FAILED" });
});

test("a shell that is not there ends as it would anywhere, and what is wrong is told to who sees no status", async () => {
  using unknown = new Viewer(urlOf(daemon, { sandbox: "box", terminal: "odd", query: { shell: "/no/such-shell" } }), {
    headers: { authorization: `Bearer ${daemon.token}` },
  });
  await until("the end is told", () => unknown.find("exit"));
  assert.equal(unknown.find("exit")?.code, 127);
  assert.match(unknown.text, /no\/such-shell/);
  using absent = new Viewer(urlOf(daemon, { sandbox: "box", terminal: "absent", query: { start: "false" } }), {
    headers: { authorization: `Bearer ${daemon.token}` },
  });
  await until("the socket is closed", () => absent.closed !== undefined);
  assert.equal(absent.closed, 1011);
  assert.deepEqual(
    absent.messages.map((message) => message.type === "error" && message.code),
    ["PROCESS_NOT_FOUND"],
  );
});

test("sleep tells the viewers, and who only looked wakes nothing", async () => {
  const sleeper = getSandbox(connection, "sleeper");
  const terminal = await sleeper.createTerminal();
  const reading = readAll(terminal);
  using viewer = await Viewer.open(daemon, { sandbox: "sleeper", terminal: terminal.id });
  await viewer.sees(/[#$] $/);
  await sleeper.stop();
  const { code, signal } = await terminal.exited;
  assert.deepEqual(await until("it is told", () => viewer.find("exit")), { type: "exit", code, signal });
  await reading;
  assert.equal((await sleeper.info()).state, "asleep");
  const query = { start: "false" };
  using late = new Viewer(urlOf(daemon, { sandbox: "sleeper", terminal: terminal.id, query }), {
    headers: { authorization: `Bearer ${daemon.token}` },
  });
  await until("the socket is closed", () => late.closed !== undefined);
  const error = late.find("error");
  assert.equal(error?.code, "PROCESS_NOT_FOUND", JSON.stringify(late.messages));
  assert.equal((await sleeper.info()).state, "asleep");
  // one that begins a terminal wakes it
  using again = await Viewer.open(daemon, { sandbox: "sleeper", terminal: terminal.id });
  again.type("echo aw''ake\r");
  await again.sees("awake");
  await sleeper.destroy();
  await until("it is told", () => again.find("exit"));
});

test("an open terminal in which nothing happens lets its sandbox sleep", async () => {
  const idle = getSandbox(connection, "idle", { sleepAfter: 1 });
  const terminal = await idle.createTerminal();
  const { signal } = await terminal.exited;
  assert(signal === "SIGHUP" || signal === "SIGTERM" || signal === "SIGKILL", signal);
  await until("it sleeps", async () => (await idle.info()).state === "asleep");
});

test("whatever is inside, others are served and nothing stays", async () => {
  const hostile = {
    floods: "yes $(printf '\\033]0;x\\007\\033[?1049h\\033[6n') ",
    garbage: "cat /dev/urandom",
    closes: "exec 0<&- 1>&- 2>&-; exec sleep 1000",
    ignores: "trap '' HUP TERM INT; echo deaf; while :; do sleep 1; done",
    forks: "setsid -f sh -c 'trap \"\" HUP; while :; do echo more; sleep 0.01; done'; exit 0",
    raw: "stty raw -echo; exec cat /dev/zero",
    stops: "kill -STOP $$",
    eats: "exec dd of=/dev/null bs=1 count=1 status=none; exec sleep 1000",
  };
  const terminals = await Promise.all(
    Object.entries(hostile).map(([id, command]) => box.createTerminal({ id, command })),
  );
  const viewers = await Promise.all(terminals.map(({ id }) => look(id, { start: "false" })));
  for (const viewer of viewers) viewer.type(Buffer.alloc(1_000_000, "x"));
  const good = await look("good");
  good.type("echo go''od\r");
  await good.sees("good");
  const forks = viewers[Object.keys(hostile).indexOf("forks")]!;
  assert.equal((await until("the end is told", () => forks.find("exit"))).code, 0);
  await good.close();
  await Promise.all(terminals.map((terminal) => terminal.close()));
  for (const { exited } of terminals) assert.equal(typeof (await exited).code, "number");
  for (const viewer of viewers) await until("the end is told", () => viewer.find("exit"));
  const left = await box.exec(
    "ps -eo args | grep -E '^(yes|sleep 1000|cat /dev|dd of|sh .*(deaf|more))' | grep -v grep",
  );
  assert.equal(left.stdout, "");
});

test("a sandbox has 256 terminals, whoever opens them; one more is refused in words", async () => {
  const full = getSandbox(connection, "full");
  const take = [
    "import os, time",
    "taken = []",
    "try:",
    "  while True: taken.append(os.open('/dev/ptmx', os.O_RDWR))",
    "except OSError: print('took', len(taken), flush=True)",
    "time.sleep(1000)",
  ];
  const holder = await full.createTerminal({ command: ["python3", "-c", take.join("\n")] });
  for await (const { data } of holder.output) if (Buffer.from(data).includes("took 255")) break;
  await assert.rejects(full.createTerminal(), {
    code: "LIMIT_REACHED",
    message: /^Cannot open a terminal: the sandbox has as many as it may/,
  });
  await full.destroy();
});

test("a viewer that sends too much at once is closed alone", async () => {
  using calm = await look("calm");
  using loud = await look("calm");
  loud.socket.send(Buffer.alloc(5 * 1024 * 1024));
  await once(loud.socket, "close");
  assert.equal(loud.closed, 1009);
  calm.type("echo still''here\r");
  await calm.sees("stillhere");
});

test("100 kB of paste arrive whole, by the wire and by the SDK", async () => {
  const text = Array.from({ length: 2_000 }, (_, at) => `line ${at} ${"é漢x".repeat(6)}`).join("\n") + "\n";
  const terminal = await box.createTerminal({
    command: "stty raw -echo; echo ready; head -c $SIZE | sha256sum",
    env: { SIZE: String(Buffer.byteLength(text)) },
  });
  const reading = readAll(terminal);
  using viewer = await look(terminal.id);
  await viewer.sees("ready");
  terminal.write(text);
  const digest = Buffer.from(await crypto.subtle.digest("SHA-256", Buffer.from(text))).toString("hex");
  await terminal.exited;
  assert.match((await reading).text, new RegExp(digest));
});
