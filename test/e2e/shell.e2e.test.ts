import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { getSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { OwnTerminal } from "../support/own-terminal.ts";
import { runProgram } from "../support/program.ts";
import { until } from "../support/until.ts";

const house = resolve(import.meta.dirname, "../..");
const program = [process.execPath, join(house, "cli/main.ts")];

let daemon: TestDaemon;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  box = getSandbox(daemon.connect(), "box");
  await box.start();
});

after(() => daemon[Symbol.asyncDispose]());

const environment = () => ({ ...process.env, ATOLL_URL: daemon.url, ATOLL_TOKEN: daemon.token });

/** `atoll` in a terminal of this machine. */
function atoll(args: string[], size: { cols?: number; rows?: number } = {}): OwnTerminal {
  return new OwnTerminal([...program, ...args], { ...size, env: environment() });
}

const isThere = async (pattern: string) => (await box.exec("pgrep", ["-f", pattern])).exitCode === 0;

test("a shell has our size, follows it, takes every key, and passes its exit code on", async () => {
  await using screen = atoll(["shell", "box"], { cols: 111, rows: 33 });
  await screen.sees(/[#$] $/);
  screen.type("stty size\r");
  await screen.sees("33 111\r\n");
  screen.type("until stty size | grep '21 95'; do sleep 0.05; done\r");
  screen.resize(95, 21);
  await screen.sees("21 95\r\n");
  await screen.sees(/95\r\n[^]*[#$] $/);
  screen.type("cat\r");
  await until("it reads", () => isThere("^cat$"));
  screen.type("one\x1d\x1dtwo\r"); // one of them goes in
  await screen.sees(/one\^\]two\r\none\x1dtwo\r\n/);
  screen.type("\x03"); // the sandbox's, not ours
  await screen.sees(/\^C[^]*[#$] $/);
  screen.type("echo $?-ü漢-\x1b[D\x1b[D\x7fX\r");
  await screen.sees("130-X漢-");
  screen.type("exit 7\r");
  assert.deepEqual(await screen.ended(), { code: 7, cooked: true });
});

test("a shell that is killed says so as a shell would", async () => {
  await using screen = atoll(["shell", "box"]);
  await screen.sees(/[#$] $/);
  screen.type("kill -KILL $$\r");
  assert.deepEqual(await screen.ended(), { code: 137, cooked: true });
});

test("Ctrl-] d leaves the shell as it is, and says how to come back", async () => {
  await using screen = atoll(["shell", "box", "--terminal", "mine", "--cwd", "/tmp"]);
  await screen.sees(/[#$] $/);
  screen.type("kept=yes; pwd\r");
  await screen.sees("/tmp\r\n");
  screen.type("\x1d");
  screen.type("d");
  assert.deepEqual(await screen.ended(), { code: 0, cooked: true });
  const [, command = ""] = /Come back with: atoll (.*)\r\n/.exec(screen.text) ?? [];
  assert.equal(command, "shell box --terminal mine");
  await using again = atoll(command.split(" "), { cols: 70, rows: 20 });
  await again.sees("kept=yes"); // what was on the screen
  again.type("echo $kept; stty size; exit\r");
  await again.sees(/yes\r\n20 70\r\n/);
  assert.equal((await again.ended()).code, 0);
});

test("who closes the window ends a shell without a name, and keeps one with a name", async () => {
  await using nameless = atoll(["shell", "box"]);
  await using named = atoll(["shell", "box", "--terminal", "kept"]);
  for (const [screen, seconds] of [
    [nameless, 71111],
    [named, 72222],
  ] as const) {
    await screen.sees(/[#$] $/);
    screen.type(`sleep ${seconds}\r`);
    await until("it runs", () => isThere(`sleep ${seconds}`));
    screen.hangUp();
    await screen.ended();
  }
  await until("the nameless is gone", async () => !(await isThere("sleep 71111")));
  assert.equal(await isThere("sleep 72222"), true);
  await (await box.createTerminal({ id: "kept" })).close();
});

test("a daemon that is killed and comes back leaves the shell on the screen", async () => {
  await using screen = atoll(["shell", "box"]);
  await screen.sees(/[#$] $/);
  screen.type("kept=on; echo be''fore\r");
  await screen.sees("before\r\n");
  await daemon.kill("SIGKILL");
  await daemon.up();
  screen.type("echo $kept-after; exit 3\r");
  await screen.sees("on-after\r\n");
  assert.equal((await screen.ended()).code, 3);
  assert.equal(screen.text.match(/before\r\n/g)?.length, 1);
});

test("exec -t runs a command in a terminal, with its environment, and without -t there is none", async () => {
  const script = 'test -t 0 && test -t 1 && echo "tty $A $PWD" && stty size; read line; echo "got:$line"; exit 9';
  const args = ["--env", "A=b", "--cwd", "/tmp", "box", "--", "sh", "-c", script];
  await using screen = atoll(["exec", "-t", ...args], { cols: 101, rows: 31 });
  await screen.sees("tty b /tmp\r\n31 101\r\n");
  screen.type("words\r");
  await screen.sees("got:words\r\n");
  assert.deepEqual(await screen.ended(), { code: 9, cooked: true });
  const [file = "", ...rest] = program;
  const plain = await runProgram(file, [...rest, "exec", "box", "--", "sh", "-c", "test -t 0 || echo none"], {
    env: environment(),
  });
  assert.equal(plain.stdout, "none\n");
  await using absent = atoll(["exec", "-t", "box", "--", "no-such-program"]);
  assert.deepEqual(await absent.ended(), { code: 127, cooked: true });
});

test("a shell whose input is a pipe runs what comes and ends with it", async () => {
  const [file = "", ...rest] = program;
  const result = await runProgram(file, [...rest, "shell", "box"], {
    env: environment(),
    stdin: "echo pi''ped; exit 4\n",
  });
  assert.equal(result.code, 4, result.stderr);
  assert.match(result.stdout, /piped\r\n/);
  const ended = await runProgram(file, [...rest, "shell", "box"], { env: environment(), stdin: "" });
  assert.equal(ended.code, 0, ended.stderr);
});

test("sleep ends the shell that is on the screen", async () => {
  await using screen = atoll(["shell", "sleeper"]);
  await screen.sees(/[#$] $/);
  await getSandbox(daemon.connect(), "sleeper").stop();
  const { code, cooked } = await screen.ended();
  assert(code > 128, `exit code ${code}`);
  assert.equal(cooked, true);
});

test("the page's program runs as it stands there", async () => {
  const page = await readFile(join(house, "docs/terminals.md"), "utf8");
  const dir = await mkdtemp(join(tmpdir(), "atoll-page-"));
  try {
    await writeFile(join(dir, "program.ts"), /```ts\n([^]*?)```/.exec(page)?.[1] ?? "");
    const [file = "", ...rest] = program;
    const args = [...rest, "run", join(dir, "program.ts")];
    const { code, stdout, stderr } = await runProgram(file, args, { env: environment() });
    assert.equal(code, 0, stderr);
    assert.match(stdout, /\r40 120\r\n42\r\n[^]*\{ code: 3 \}\n$/);
  } finally {
    await rm(dir, { recursive: true });
  }
});
