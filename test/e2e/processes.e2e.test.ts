import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  type Connection,
  getSandbox,
  type LogEvent,
  parseSSEStream,
  type Process,
  type Sandbox,
  SandboxError,
} from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { runProgram } from "../support/program.ts";
import { until } from "../support/until.ts";

let daemon: TestDaemon;
let connection: Connection;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  connection = daemon.connect();
  box = getSandbox(connection, "servers");
});

after(async () => {
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
});

/** A web server in a line of Python, on an address of the sandbox. */
function server(port: number, address: string, more = ""): string {
  const family = address.includes(":") ? "S.HTTPServer.address_family = socket.AF_INET6;" : "";
  const reply = "def do_GET(s): s.send_response(200 if READY() else 503); s.end_headers()";
  const program = [
    "import http.server as S, os, socket, time",
    family,
    'READY = lambda: not os.path.exists("/tmp/not-ready")',
    "class H(S.BaseHTTPRequestHandler):",
    `  ${reply}`,
    `  def log_message(s, *a): open("/tmp/asked-${port}", "a").write("x")`,
    more,
    `S.HTTPServer(("${address}", ${port}), H).serve_forever()`,
  ];
  return `exec python3 -c '${program.join("\n").replaceAll("'", `'\\''`)}'`;
}

test("a process runs on when its client has gone, with what it printed", async () => {
  const started: Process[] = [];
  const process = await box.startProcess("echo out; echo err >&2; exec sleep 1000", {
    processId: "sleeper",
    onStart: (it) => void started.push(it),
  });
  assert.deepEqual([process.id, process.status, started[0]], ["sleeper", "running", process]);
  assert(process.pid > 1 && Math.abs(Date.now() - process.startTime.getTime()) < 60_000);
  const { line } = await process.waitForLog("out");
  assert.equal(line, "out");
  const other = getSandbox(daemon.connect(), "servers");
  const again = (await other.getProcess("sleeper"))!;
  assert.deepEqual(
    [again.pid, again.command, await again.getStatus()],
    [process.pid, "echo out; echo err >&2; exec sleep 1000", "running"],
  );
  await process.waitForLog("err");
  assert.deepEqual(await again.getLogs(), { processId: "sleeper", stdout: "out\n", stderr: "err\n", offset: 8 });
  assert.deepEqual(JSON.parse(JSON.stringify(again)).id, "sleeper");
  await again.kill();
  assert.deepEqual(await process.waitForExit(), { exitCode: 143, signal: "SIGTERM" });
  assert.deepEqual([process.status, process.exitCode], ["killed", 143]);
  assert.equal(await again.getStatus(), "killed");
  assert(again.endTime && again.endTime >= again.startTime);
});

test("callbacks hear the output, in order, and the end", async () => {
  const heard: string[] = [];
  const ended = Promise.withResolvers<number>();
  await box.startProcess(
    "for i in 1 2 3; do echo $i; sleep 0.01; done; printf '\\303'; sleep 0.05; printf '\\274'; exit 7",
    {
      onOutput: async (stream, data) => {
        await new Promise((resolve) => setImmediate(resolve));
        heard.push(`${stream}:${data}`);
      },
      onExit: ended.resolve,
      onError: ended.reject,
    },
  );
  assert.equal(await ended.promise, 7);
  assert.equal(heard.join("").replaceAll("stdout:", ""), "1\n2\n3\nü");
});

test("what keeps a process from starting is thrown, and told to onError", async () => {
  const errors: Error[] = [];
  const onError = (error: Error) => void errors.push(error);
  await assert.rejects(box.startProcess("true", { cwd: "/no/such", onError }), { code: "FILE_NOT_FOUND" });
  assert(SandboxError.is(errors[0], "FILE_NOT_FOUND"));
  await assert.rejects(box.startProcess("true", { processId: "a b" }), { code: "VALIDATION_FAILED" });
  assert.equal(await box.getProcess("no-such"), null);
  assert.equal(await getSandbox(connection, "no-such-sandbox").getProcess("x"), null);
  await assert.rejects(box.killProcess("no-such"), { code: "PROCESS_NOT_FOUND" });
  await assert.rejects(box.getProcessLogs("no-such"), { code: "PROCESS_NOT_FOUND" });
  await assert.rejects(box.streamProcessLogs("no-such"), { code: "PROCESS_NOT_FOUND" });
});

test("a signal reaches the whole tree, and it is the one asked for", async () => {
  const process = await box.startProcess(
    `trap 'echo got USR1' USR1; bash -c "trap 'echo child got USR1' USR1; echo up; while :; do sleep 0.02; done" & while :; do sleep 0.02; done`,
  );
  await process.waitForLog("up");
  await process.kill("SIGUSR1");
  await Promise.all([process.waitForLog(/^got USR1/), process.waitForLog("child got USR1")]);
  assert.equal(await process.getStatus(), "running");
  await process.kill("SIGKILL");
  assert.deepEqual(await process.waitForExit(), { exitCode: 137, signal: "SIGKILL" });
  await assert.rejects(process.kill("NONSENSE"), { code: "VALIDATION_FAILED" });
});

test("input is written in order and ends when it is closed", async () => {
  const process = await box.startProcess("cat; echo closed");
  await Promise.all(["one\n", "two\n", new TextEncoder().encode("three\n")].map((data) => process.write(data)));
  await process.waitForLog("three");
  await process.closeStdin();
  assert.deepEqual(await process.waitForExit(), { exitCode: 0 });
  assert.equal((await process.getLogs()).stdout, "one\ntwo\nthree\nclosed\n");
  assert.equal(process.status, "completed");
  await assert.rejects(process.write("late"), { code: "PROCESS_NOT_FOUND" });
});

test("the same start again gives the process that runs, another one is refused, an ended one gives its id", async () => {
  const first = await box.startProcess("exec sleep 1000", { processId: "one" });
  const same = await box.startProcess("exec sleep 1000", { processId: "one" });
  assert.equal(same.pid, first.pid);
  await assert.rejects(box.startProcess("exec sleep 2000", { processId: "one" }), { code: "RESOURCE_BUSY" });
  await first.kill();
  await first.waitForExit();
  const next = await box.startProcess("echo anew", { processId: "one" });
  assert.notEqual(next.pid, first.pid);
  await next.waitForLog("anew");
});

test("a background process starts from its session and leaves it as it was", async () => {
  const session = await box.createSession({ cwd: "/etc", env: { STAGE: "test" }, commandTimeoutMs: 300 });
  const process = await session.startProcess("cd /tmp; pwd; sleep 0.4; echo $STAGE");
  await process.waitForExit();
  assert.equal((await session.getProcessLogs(process.id)).stdout, "/tmp\ntest\n");
  assert.equal((await session.exec("pwd")).stdout, "/etc\n");
});

test("a line is found in what is printed already and in what comes, on either stream, over pieces", async () => {
  const process = await box.startProcess(
    "echo before; printf 'Local: http://localhost:51'; sleep 0.05; echo 73; echo \"on stderr\" >&2; printf 'login: '; read; exit 3",
  );
  const found = await process.waitForLog(/localhost:(\d+)/);
  assert.deepEqual([found.line, found.match?.[1]], ["Local: http://localhost:5173", "5173"]);
  assert.equal((await process.waitForLog("before")).line, "before");
  assert.equal((await process.waitForLog("stderr")).line, "on stderr");
  assert.equal((await process.waitForLog(/^login: $/)).line, "login: ");
  await assert.rejects(process.waitForLog("never", 100), (error: SandboxError) => {
    assert.equal(error.code, "PROCESS_READY_TIMEOUT");
    assert.match(String(error.details["output"]), /on stderr/);
    return true;
  });
  await assert.rejects(process.waitForExit(50), { code: "PROCESS_READY_TIMEOUT" });
  await assert.rejects(process.waitForLog("x", -1), { code: "VALIDATION_FAILED" });
  const waiting = assert.rejects(process.waitForLog("never"), (error: SandboxError) => {
    assert.equal(error.code, "PROCESS_EXITED_BEFORE_READY");
    assert.match(error.message, /exit code 3[^]*localhost:5173/);
    assert.equal(error.details["exitCode"], 3);
    return true;
  });
  await process.write("\n");
  await waiting;
  assert.equal((await process.waitForLog("before")).line, "before"); // also of one that has ended
});

test("logs are read by offset, in parts that join exactly", async () => {
  const process = await box.startProcess('for i in $(seq 300); do echo "ä$i"; echo "ö$i" >&2; done');
  await process.waitForExit();
  const whole = await process.getLogs();
  const parts = { stdout: "", stderr: "" };
  let offset = 0;
  for (let reads = 0; offset < whole.offset; reads++) {
    const part = await process.getLogs({ after: offset, maxBytes: 701 });
    assert(part.offset > offset && part.offset - offset <= 701 && reads < 100);
    parts.stdout += part.stdout;
    parts.stderr += part.stderr;
    offset = part.offset;
  }
  assert.deepEqual(parts, { stdout: whole.stdout, stderr: whole.stderr });
  assert.equal(whole.stdout, Array.from({ length: 300 }, (_, i) => `ä${i + 1}\n`).join(""));
  assert.deepEqual((await process.getLogs({ after: offset })).stdout, "");
});

test("a log keeps its last megabyte and says what is gone", async () => {
  const process = await box.startProcess("head -c 3000000 /dev/zero | tr '\\0' x; echo end");
  await process.waitForExit();
  const { stdout, truncated, offset } = await process.getLogs();
  assert.deepEqual([truncated, offset, stdout.endsWith("xend\n")], [true, 3_000_004, true]);
  assert(stdout.length >= 1_000_000 && stdout.length < 1_200_000);
  assert.equal((await process.waitForLog("end")).line.at(-1), "d");
  const events: LogEvent[] = [];
  for await (const event of parseSSEStream<LogEvent>(await box.streamProcessLogs(process.id))) events.push(event);
  assert.deepEqual([events[0]?.type, events.at(-1)?.type, events.at(-1)?.exitCode], ["truncated", "exit", 0]);
});

test("a stream of logs goes on over a restart of the daemon, and loses nothing", async () => {
  const process = await box.startProcess('i=0; while read line; do echo "$((i++)) $line"; done');
  const stream = await box.streamProcessLogs(process.id);
  let text = "";
  let last: LogEvent | undefined;
  const reading = (async () => {
    for await (const event of parseSSEStream<LogEvent>(stream)) {
      text += event.data;
      last = event;
    }
  })();
  await process.write("a\n");
  await until("the first line is heard", () => text === "0 a\n");
  const waiting = process.waitForLog("2 c");
  await daemon.kill("SIGKILL");
  await daemon.up();
  await process.write("b\nc\n");
  await waiting;
  assert.equal((await box.getProcess(process.id))?.pid, process.pid);
  await until("the rest is heard", () => text === "0 a\n1 b\n2 c\n");
  const late = await box.streamProcessLogs(process.id, { after: last?.offset ?? 0 });
  await process.closeStdin();
  await reading;
  assert.deepEqual([last?.type, last?.exitCode], ["exit", 0]);
  const rest: LogEvent[] = [];
  for await (const event of parseSSEStream<LogEvent>(late)) rest.push(event);
  assert.deepEqual(
    rest.map(({ type }) => type),
    ["exit"],
  );
});

test("processes are listed but not those of exec, killed together, and cleared away", async () => {
  const own = getSandbox(connection, "many");
  assert.deepEqual(await own.listProcesses(), []);
  await own.startProcess("exec sleep 1000", { processId: "first" });
  await own.startProcess("bash -c 'sleep 1000' & sleep 1000", { processId: "second" });
  const command = own.exec("touch /tmp/runs; sleep 1000", { timeout: 60_000 });
  await until("the command runs", async () => (await own.exists("/tmp/runs")).exists);
  const ids = async () => (await own.listProcesses()).map(({ id, status }) => `${id} ${status}`);
  assert.deepEqual(await ids(), ["first running", "second running"]);
  assert.equal(await own.cleanupCompletedProcesses(), 0);
  // left in the background: by a command that has ended, and by a process that has
  await own.exec("sleep 1001 >/dev/null 2>&1 &");
  await (await own.startProcess("sleep 1001 &")).waitForExit();
  assert.equal(await own.killAllProcesses(), 4);
  await until("both have ended", async () => (await ids()).every((line) => /killed$|completed$/.test(line)));
  assert.equal(await own.killAllProcesses(), 0);
  assert.equal(await own.cleanupCompletedProcesses(), 3);
  assert.deepEqual(await ids(), []);
  assert.equal((await own.exec("pgrep -fx 'sleep 100.'")).stdout.split("\n").length, 2);
  await own.destroy();
  assert.equal((await command).success, false);
});

test("a handle of an older run meets no stranger", async () => {
  const own = getSandbox(connection, "older");
  const ended = Promise.withResolvers<number>();
  const options = { processId: "web", onExit: ended.resolve, onError: ended.reject };
  const process = await own.startProcess("exec sleep 1000", options);
  const port = assert.rejects(process.waitForPort(80), ({ code }: SandboxError) =>
    ["PROCESS_EXITED_BEFORE_READY", "STALE_HANDLE"].includes(code),
  );
  await own.stop();
  await port;
  assert.equal(await ended.promise, 143);
  await assert.rejects(process.getStatus(), { code: "STALE_HANDLE" });
  assert.equal(await own.getProcess("web"), null);
  assert.deepEqual(await own.listProcesses(), []);
  const stranger = await own.startProcess("exec sleep 2000", { processId: "web" });
  for (const call of [
    () => process.kill(),
    () => process.getLogs(),
    () => process.write("x"),
    () => process.waitForLog("x"),
    () => process.waitForExit(),
    () => process.waitForPort(80),
  ]) {
    await assert.rejects(call(), { code: "STALE_HANDLE" });
  }
  assert.equal(await stranger.getStatus(), "running");
  await own.destroy();
});

test("a timeout ends a process with its tree", async () => {
  const process = await box.startProcess("sleep 1000 & sleep 1000", { timeout: 100 });
  assert.equal((await process.waitForExit()).exitCode, 124);
  assert.equal(process.status, "killed");
});

for (const [port, address] of [
  [3001, "127.0.0.1"],
  [3002, "::1"],
  [3003, "0.0.0.0"],
] as const) {
  test(`a port on ${address} is waited for, and not asked before it listens`, async () => {
    await box.writeFile("/tmp/not-ready", "");
    const process = await box.startProcess(server(port, address));
    await process.waitForPort(port, { mode: "tcp" });
    const asked = async () =>
      (await box.exists(`/tmp/asked-${port}`)).exists ? (await box.stat(`/tmp/asked-${port}`)).size : 0;
    assert.equal(await asked(), 0);
    const ready = process.waitForPort(port, { interval: 20 });
    await until("it has asked", async () => (await asked()) > 0);
    await process.waitForPort(port, { status: 503 });
    await assert.rejects(
      process.waitForPort(port, { timeout: 100, status: { min: 400, max: 499 } }),
      (error: SandboxError) => {
        assert.equal(error.code, "PROCESS_READY_TIMEOUT");
        assert.match(error.message, /status 503/);
        return true;
      },
    );
    await box.deleteFile("/tmp/not-ready");
    await ready;
    await process.kill();
  });
}

test("waiting for a port ends with the process, and tells its last words", async () => {
  const process = await box.startProcess("echo cannot bind >&2; read; exit 9");
  await assert.rejects(process.waitForPort(3999, { timeout: 100 }), { code: "PROCESS_READY_TIMEOUT" });
  await assert.rejects(process.waitForPort(0), { code: "INVALID_PORT" });
  const waiting = assert.rejects(process.waitForPort(3999), (error: SandboxError) => {
    assert.equal(error.code, "PROCESS_EXITED_BEFORE_READY");
    assert.match(error.message, /exit code 9[^]*cannot bind/);
    return true;
  });
  await process.write("\n");
  await waiting;
  await assert.rejects(process.waitForPort(3999), { code: "PROCESS_EXITED_BEFORE_READY" });
});

test("a service is there again after sleep, under its id, and no other process is", async () => {
  const own = getSandbox(connection, "waking");
  const first = await own.startProcess("echo run >> /workspace/runs; echo up; exec sleep 1000", {
    processId: "web",
    restart: "wake",
  });
  await own.startProcess("exec sleep 1000", { processId: "other" });
  assert.equal(first.restart, "wake");
  await first.waitForLog("up");
  await own.stop();
  await own.start();
  const second = (await own.getProcess("web"))!;
  assert.deepEqual([second.restart, second.status], ["wake", "running"]);
  await second.waitForLog("up");
  assert.equal((await own.readFile("/workspace/runs")).content, "run\nrun\n");
  assert.equal(await own.getProcess("other"), null);
  await assert.rejects(first.kill(), { code: "STALE_HANDLE" });
  // an app that makes sure of its service at every start gets the one that runs
  const same = await own.startProcess("echo run >> /workspace/runs; echo up; exec sleep 1000", {
    processId: "web",
    restart: "wake",
  });
  assert.equal(same.pid, second.pid);
  await second.kill();
  await second.waitForExit();
  await own.stop();
  await own.start();
  assert.deepEqual(await own.listProcesses(), []);
  await own.destroy();
});

test("a service of a sandbox that sleeps can be ended", async () => {
  const own = getSandbox(connection, "ended");
  await own.startProcess("exec sleep 1000", { processId: "web", restart: "wake" });
  await own.stop();
  await own.killProcess("web");
  await own.start();
  assert.deepEqual(await own.listProcesses(), []);
  await own.destroy();
});

test("a service that fails is started again with longer and longer pauses, and not when it ends well", async () => {
  const own = getSandbox(connection, "failing");
  await own.startProcess("echo $(date +%s%N) >> /workspace/times; echo sorry >&2; exit 1", {
    processId: "web",
    restart: "on-failure",
  });
  const times = async () => (await own.readFile("/workspace/times")).content.trim().split("\n");
  await until("it was started three times", async () => (await times()).length === 3);
  const [a = 0, b = 0, c = 0] = (await times()).map((text) => Number(text) / 1e6);
  assert(b - a >= 1_000 && c - b >= 2_000, `${b - a} ${c - b}`);
  const failed = (await own.getProcess("web"))!;
  assert.deepEqual([failed.restart, await failed.getStatus(), failed.exitCode], ["on-failure", "failed", 1]);
  assert.equal((await failed.getLogs()).stderr, "sorry\n");
  await own.killProcess("web");
  const service = await own.startProcess("exit 0", { processId: "web", restart: "on-failure" });
  assert.equal((await service.waitForExit()).exitCode, 0);
  assert.equal((await times()).length, 3);
  await own.destroy();
});

/** Whether a process of this id runs, seen from the host: for the time in which no daemon can be asked. */
function runsOnHost(id: string): boolean {
  return readdirSync("/proc").some((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, "latin1").includes(`ATOLL_PROCESS=${id}\0`);
    } catch {
      return false; // it has just ended
    }
  });
}

test("a service that ends while no daemon watches is started again", async () => {
  const own = getSandbox(connection, "unwatched");
  const id = `unwatched-${randomUUID()}`;
  const service = await own.startProcess("echo up; until [ -e /tmp/fail ]; do sleep 0.02; done; rm /tmp/fail; exit 1", {
    processId: id,
    restart: "on-failure",
  });
  await service.waitForLog("up");
  assert(runsOnHost(id));
  await own.startProcess("sleep 0.3; touch /tmp/fail");
  await daemon.kill("SIGKILL");
  await until("it has ended", () => !runsOnHost(id));
  await daemon.up();
  await until("it runs again", async () => {
    const found = (await own.getProcess(id))!;
    return found.status === "running" && found.pid !== service.pid;
  });
  await own.destroy();
});

test("a service that cannot be started says why, and that it is there", async () => {
  const own = getSandbox(connection, "lost");
  await own.mkdir("/workspace/app");
  await own.startProcess("exec sleep 1000", { processId: "web", restart: "wake", cwd: "/workspace/app" });
  await own.deleteFile("/workspace/app", { recursive: true });
  await own.stop();
  await own.start();
  const [service] = await own.listProcesses();
  assert.deepEqual([service?.id, service?.status, service?.error?.code], ["web", "error", "FILE_NOT_FOUND"]);
  assert.equal((await own.getProcess("web"))?.status, "error");
  await own.killProcess("web");
  assert.deepEqual(await own.listProcesses(), []);
  await own.destroy();
});

test("a service that keeps failing and a log that is followed let the sandbox sleep", async () => {
  const own = getSandbox(connection, "sleepy", { sleepAfter: 4 });
  await own.startProcess("for i in $(seq 20000); do :; done; exit 1", { processId: "bad", restart: "on-failure" });
  const server = await own.startProcess("echo up; exec sleep 1000");
  await server.waitForLog("up");
  const following = server.waitForLog("never");
  await assert.rejects(following, { code: "PROCESS_EXITED_BEFORE_READY" });
  await until("it sleeps", async () => (await own.info()).state === "asleep");
  assert.equal((await own.info()).lastEnd?.reason, "idle");
  await own.destroy();
});

test("services go with their sandbox", async () => {
  const own = getSandbox(connection, "gone");
  await own.startProcess("exec sleep 1000", { processId: "web", restart: "wake" });
  await own.destroy();
  await own.start();
  assert.deepEqual(await own.listProcesses(), []);
  await own.destroy();
});

/** The command line, pointed at this daemon. */
function atoll(...args: string[]) {
  const env = { ...process.env, ATOLL_URL: daemon.url, ATOLL_TOKEN: daemon.token, NO_COLOR: "1" };
  return runProgram(process.execPath, [join(import.meta.dirname, "../../cli/main.ts"), ...args], { env });
}

test("the command line lists processes and prints what they printed", async () => {
  const own = getSandbox(connection, "shown");
  assert.match((await atoll("ps", "shown")).stderr, /Cannot find sandbox "shown"/);
  const server = await own.startProcess("echo one; echo two; echo err >&2; read; echo three; exit 4", {
    processId: "web",
  });
  await server.waitForLog("err");
  assert.match((await atoll("ps", "shown")).stdout, /^ID .*\nweb +\d+ +running +\d+ s ago +echo one; echo two/);
  const [listed] = JSON.parse((await atoll("ps", "shown", "--json")).stdout) as Process[];
  assert.deepEqual([listed?.id, listed?.status], ["web", "running"]);
  const { stdout, stderr } = await atoll("logs", "shown", "web");
  assert.deepEqual([stdout, stderr], ["one\ntwo\n", "err\n"]);
  assert.equal((JSON.parse((await atoll("logs", "shown", "web", "--json")).stdout) as { offset: number }).offset, 12);
  const following = atoll("logs", "shown", "web", "--follow", "--tail", "4");
  await server.write("\n");
  const followed = await following;
  assert.deepEqual([followed.code, followed.stderr], [0, "err\n"]);
  assert.equal(followed.stdout, "one\ntwo\nthree\n");
  assert.match((await atoll("ps", "shown")).stdout, /failed \(4\)/);
  assert.equal((await atoll("logs", "shown", "nobody")).code, 3);
  assert.equal((await atoll("logs", "shown", "web", "--tail", "x")).code, 2);
  await own.stop();
  assert.match((await atoll("ps", "shown")).stdout, /shown is asleep/);
  await own.destroy();
});

test("the page's program runs as it stands there", async () => {
  const page = await readFile(join(import.meta.dirname, "../../docs/processes.md"), "utf8");
  const dir = await mkdtemp(join(tmpdir(), "atoll-page-"));
  try {
    await writeFile(join(dir, "program.ts"), /```ts\n([^]*?)```/.exec(page)?.[1] ?? "");
    const { code, stdout, stderr } = await atoll("run", join(dir, "program.ts"));
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^web running <h1>hello<\/h1>\n\{ exitCode: 143, signal: 'SIGTERM' \}\n$/);
  } finally {
    await rm(dir, { recursive: true });
  }
});
