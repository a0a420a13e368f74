import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Connection, type ExecEvent, getSandbox, parseSSEStream, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { until } from "../support/until.ts";

let daemon: TestDaemon;
let connection: Connection;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  connection = daemon.connect();
  box = getSandbox(connection, "runner");
});

after(async () => {
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
});

test("a program gets its arguments as they are, without a shell", async () => {
  const args = ["a b", "$HOME", "'", '"', "*", "", "ü✓", "line\nbreak"];
  const { stdout, exitCode, command } = await box.exec("printf", ["[%s]", ...args]);
  assert.equal(stdout, args.map((arg) => `[${arg}]`).join(""));
  assert.equal(exitCode, 0);
  assert.equal(command, `printf [%s] ${args.join(" ")}`);
});

test("an exit code is a result, and stdout and stderr are apart", async () => {
  const result = await box.exec("echo out; echo err >&2; exit 7");
  const { success, exitCode, stdout, stderr, sessionId } = result;
  assert.deepEqual(
    { success, exitCode, stdout, stderr, sessionId },
    { success: false, exitCode: 7, stdout: "out\n", stderr: "err\n", sessionId: "default" },
  );
  assert(result.duration > 0 && result.cpuTime > 0 && !Number.isNaN(Date.parse(result.timestamp)));
});

test("stderr merged into stdout keeps the exact order", async () => {
  const { stdout, stderr } = await box.exec("for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done", { stderr: "merge" });
  assert.equal(stdout, "o1\ne1\no2\ne2\no3\ne3\no4\ne4\no5\ne5\n");
  assert.equal(stderr, "");
});

test("a program that is not there is exit code 127, one that may not be run 126", async () => {
  assert.equal((await box.exec("no-such-program", [])).exitCode, 127);
  assert.equal((await box.exec("no-such-program")).exitCode, 127);
  assert.equal((await box.exec("/etc/passwd", [])).exitCode, 126);
});

test("a directory that is not there is FILE_NOT_FOUND, a file in its place NOT_DIRECTORY", async () => {
  await assert.rejects(box.exec("true", { cwd: "/no/such" }), { code: "FILE_NOT_FOUND" });
  await assert.rejects(box.exec("true", [], { cwd: "/etc/passwd" }), { code: "NOT_DIRECTORY" });
});

test("directory, variables and user of one call are of that call only", async () => {
  const { stdout } = await box.exec('pwd; echo "$A|${HOME-unset}"; id -un', {
    cwd: "/tmp",
    env: { A: "1", HOME: undefined },
    user: "nobody",
  });
  assert.equal(stdout, "/tmp\n1|unset\nnobody\n");
  assert.equal((await box.exec('echo "$(pwd)|${A-unset}|$(id -un)"')).stdout, "/workspace|unset|root\n");
});

test("exact bytes come back, in both encodings", async () => {
  const bytes = await box.exec("printf '\\377\\000\\303'; printf '\\274'", { encoding: "buffer" });
  assert.deepEqual(bytes.stdout, new Uint8Array([255, 0, 195, 188]));
  assert.equal((await box.exec("printf '\\377\\000\\303'; sleep 0.05; printf '\\274'")).stdout, "\uFFFD\0ü");
});

test("input is text, bytes or a stream of any length, and ends", async () => {
  assert.equal((await box.exec("cat", [], { stdin: "ü" })).stdout, "ü");
  assert.deepEqual(
    (await box.exec("cat", [], { stdin: new Uint8Array([0, 255]), encoding: "buffer" })).stdout,
    new Uint8Array([0, 255]),
  );
  assert.equal((await box.exec("cat")).stdout, "");
  const large = new Blob([new Uint8Array(5_000_000)]);
  assert.equal((await box.exec("wc", ["-c"], { stdin: large.stream() })).stdout.trim(), "5000000");
  assert.equal((await box.exec("wc -c", { stdin: "x".repeat(3_000_000) })).stdout.trim(), "3000000");
});

test("a command that reads only a part of its input ends", async () => {
  const { stdout, exitCode } = await box.exec("head", ["-c", "3"], { stdin: "x".repeat(3_000_000) });
  assert.deepEqual([stdout, exitCode], ["xxx", 0]);
});

test("output is heard as it comes", async () => {
  const heard: string[] = [];
  let first = () => {};
  const came = new Promise<void>((resolve) => (first = resolve));
  const running = box.exec("echo one; until [ -e /tmp/go ]; do sleep 0.01; done; echo two", {
    onOutput: (stream, data) => {
      heard.push(`${stream}:${data}`);
      first();
    },
  });
  await came;
  await box.writeFile("/tmp/go", "");
  assert.equal((await running).stdout, "one\ntwo\n");
  assert.deepEqual(heard, ["stdout:one\n", "stdout:two\n"]);
});

test("a timeout ends the whole tree and says so", async () => {
  const result = await box.exec("sleep 1000 & sleep 1000", { timeout: 200 });
  const { success, exitCode, timedOut, reason } = result;
  assert.deepEqual(
    { success, exitCode, timedOut, reason },
    { success: false, exitCode: 124, timedOut: true, reason: "timeout" },
  );
  assert.equal((await box.exec("pgrep", ["-x", "sleep"])).exitCode, 1);
});

test("an abort ends the whole tree, and the result comes when it has ended", async () => {
  const abort = new AbortController();
  const { reason, success } = await box.exec("echo up; sleep 1000 & sleep 1000", {
    signal: abort.signal,
    onOutput: () => abort.abort(),
  });
  assert.deepEqual({ reason, success }, { reason: "aborted", success: false });
  assert.equal((await box.exec("pgrep", ["-x", "sleep"])).exitCode, 1);
});

test("what goes on in the background does not hold the command", async () => {
  const { stdout } = await box.exec("sleep 1000 & echo done");
  assert.equal(stdout, "done\n");
  assert.equal((await box.exec("pkill", ["-x", "sleep"])).exitCode, 0);
});

test("beyond maxBuffer the command goes on and the result is truncated", async () => {
  let heard = 0;
  const result = await box.exec("seq 100000", { maxBuffer: 10, onOutput: (_, data) => void (heard += data.length) });
  assert.deepEqual([result.stdout, result.truncated, result.exitCode, heard], ["1\n2\n3\n4\n5\n", true, 0, 588_895]);
});

test("a Response streams the events of a command, with the result in the last", async () => {
  const response = await box.exec("echo a; echo b >&2; exit 3", { stream: true });
  const events: ExecEvent[] = [];
  for await (const event of parseSSEStream<ExecEvent>(response.body as ReadableStream<Uint8Array>)) events.push(event);
  assert.deepEqual([events[0]?.type, events.at(-1)?.type, events.at(-1)?.exitCode], ["start", "complete", 3]);
  const { stdout, stderr } = events.at(-1)?.result ?? {};
  assert.deepEqual([stdout, stderr], ["a\n", "b\n"]);
});

test("a reader that comes back with the last event's id misses nothing and runs nothing again", async () => {
  const command = "echo ran >> /tmp/runs; for i in $(seq 1 40); do echo $i; sleep 0.05; done; exit 4";
  const heard: string[] = [];
  let lastEventId: string | undefined;
  let [visits, exitCode] = [0, -1];
  while (exitCode < 0) {
    const { body } = await box.exec(command, { stream: true, lastEventId });
    visits++;
    let text = "";
    for await (const chunk of body!.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)) {
      text += chunk;
      const events = text.split("\n\n");
      text = events.pop() ?? "";
      for (const lines of events) {
        const data = /^data: (.*)$/m.exec(lines)?.[1];
        if (data === undefined) continue;
        lastEventId = /^id: (.*)$/m.exec(lines)?.[1];
        assert(lastEventId !== undefined, lines);
        const event = JSON.parse(data) as ExecEvent;
        heard.push(event.type === "stdout" ? event.data! : event.type);
        if (event.type === "complete") exitCode = event.exitCode ?? -1;
      }
      if (heard.length % 10 === 9) break;
    }
  }
  assert(visits > 1);
  const output = Array.from({ length: 40 }, (_, i) => `${i + 1}\n`).join("");
  assert.equal(heard.join(""), `start${output}complete`);
  assert.equal(exitCode, 4);
  assert.equal((await box.readFile("/tmp/runs")).content, "ran\n");
  await assert.rejects(box.exec("true", { stream: true, lastEventId: "5" }), { code: "VALIDATION_FAILED" });
  await assert.rejects(box.exec("true", { stream: true, lastEventId: "gone.1-5" }), { code: "PROCESS_NOT_FOUND" });
});

test("a command and an environment of a megabyte work", async () => {
  const word = "x".repeat(1_000_000);
  assert.equal((await box.exec(`text='${word}'; echo \${#text}`)).stdout, "1000000\n");
  const env = Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`LONG${index}`, "y".repeat(100_000)]));
  assert.equal((await box.exec("sh", ["-c", "env | wc -c"], { env })).exitCode, 0);
});

test("bad commands are refused in words", async () => {
  await assert.rejects(box.exec("a\0b"), { code: "INVALID_COMMAND" });
  await assert.rejects(box.exec("", []), { code: "INVALID_COMMAND" });
  await assert.rejects(box.exec("true", { timeout: -1 }), { code: "VALIDATION_FAILED" });
  await assert.rejects(box.exec("true", { env: { "A=B": "1" } }), { code: "VALIDATION_FAILED" });
});

test("a session keeps what its commands leave behind, apart from others", async () => {
  const session = await box.createSession({ id: "build", cwd: "/tmp", env: { STAGE: "test" } });
  await session.exec("cd /etc; export A=1; greet() { echo hello $1; }; alias ll='ls -l'");
  assert.equal((await session.exec("pwd; echo $A $STAGE; greet you")).stdout, "/etc\n1 test\nhello you\n");
  assert.equal((await session.exec("exit 3")).exitCode, 3);
  assert.equal((await session.exec("echo $A")).stdout, "1\n");
  assert.equal((await box.exec('echo "${A-unset}"')).stdout, "unset\n");
  await session.setEnvVars({ A: "2", STAGE: undefined });
  const again = await box.getSession("build");
  assert.equal((await again.exec('echo "$A|${STAGE-unset}"; pwd')).stdout, "2|unset\n/etc\n");
  assert.match((await again.readFile("passwd")).content, /^root:/);
  await session.exec("export STAGE=later");
  const program = await session.exec("sh", ["-c", "pwd; echo $STAGE"]);
  assert.equal(program.stdout, `${(await session.exec("pwd")).stdout}later\n`);
  assert.equal((await session.exec("pwd", [], { cwd: ".." })).exitCode, 0);
  await assert.rejects(box.createSession({ id: "build" }), { code: "SESSION_ALREADY_EXISTS" });
  assert.equal((await box.deleteSession("build")).sessionId, "build");
  await assert.rejects(box.getSession("build"), { code: "SESSION_NOT_FOUND" });
});

test("commands of one session run side by side", async () => {
  const session = await box.createSession();
  const [slow, quick] = await Promise.all([
    session.exec("until [ -e /tmp/side ]; do sleep 0.01; done; A=1; B=2"),
    session.exec("touch /tmp/side; C=3"),
  ]);
  assert.deepEqual([slow.stateSaved, quick.stateSaved], [true, true]);
  assert.equal((await session.exec("echo $A$B$C")).stdout, "123\n");
});

test("a session's own time limit holds where the call names none", async () => {
  const session = await box.createSession({ commandTimeoutMs: 200 });
  assert.equal((await session.exec("sleep 1000")).timedOut, true);
  assert.equal((await session.exec("sleep 0.3; echo ok", { timeout: 20_000 })).stdout, "ok\n");
});

test("without a default session every top-level command starts fresh", async () => {
  const fresh = getSandbox(connection, "runner", { enableDefaultSession: false });
  await fresh.exec("export KEPT=1; cd /tmp");
  assert.equal((await fresh.exec('echo "${KEPT-unset} $(pwd)"')).stdout, "unset /workspace\n");
});

test("variables that are set reach the default session, above what it has itself", async () => {
  const own = getSandbox(connection, "variables", { envVars: { A: "first" } });
  assert.equal((await own.exec("echo $A; export A=mine")).stdout, "first\n");
  await own.setEnvVars({ A: "second", B: "new" });
  assert.equal((await own.exec("echo $A $B")).stdout, "second new\n");
  await own.setEnvVars({ A: undefined });
  assert.equal((await own.exec('echo "${A-unset}"')).stdout, "unset\n");
});

test("a daemon that is killed and started again in the middle of a command is not noticed", async () => {
  let heard = "";
  const running = box.exec("for i in $(seq 300); do echo line $i; sleep 0.01; done", {
    onOutput: (_, data) => void (heard += data),
  });
  await until("the command prints", () => heard.includes("line 20"));
  await daemon.kill("SIGKILL");
  await daemon.up();
  const { stdout, exitCode } = await running;
  assert.equal(exitCode, 0);
  assert.equal(stdout, Array.from({ length: 300 }, (_, index) => `line ${index + 1}\n`).join(""));
  assert.equal(heard, stdout);
});
