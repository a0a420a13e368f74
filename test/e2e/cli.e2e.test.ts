import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import type { SandboxInfo } from "../../protocol/sandbox.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { type ProgramOptions, runProgram } from "../support/program.ts";
import { until } from "../support/until.ts";

const house = resolve(import.meta.dirname, "../..");
const programs = join(house, "test/fixtures/programs");

let dataDir = "";
let workDir = "";
let env: NodeJS.ProcessEnv = {};

/** Runs the command line against a daemon of this file's own, which it starts and ends itself. */
function atoll(args: string[], options: ProgramOptions = {}) {
  return runProgram(process.execPath, [join(house, "cli/main.ts"), ...args], { cwd: workDir, env, ...options });
}

/** The same, where anything but success is a failure of the test. */
async function succeeds(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await atoll(args);
  assert.equal(code, 0, `atoll ${args.join(" ")}: ${stderr}`);
  return stdout;
}

async function json<T>(...args: string[]): Promise<T> {
  return JSON.parse(await succeeds(...args, "--json")) as T;
}

before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "atoll-cli-"));
  workDir = await mkdtemp(join(tmpdir(), "atoll-cli-work-"));
  const { ATOLL_URL: _url, ATOLL_TOKEN: _token, ...rest } = process.env;
  env = { ...rest, ATOLL_DATA_DIR: dataDir, ATOLL_LISTEN: "127.0.0.1:0" };
  await succeeds("up", "--detach");
});

after(async () => {
  const { tag } = await snapshotHost(dataDir);
  await atoll(["down", "--purge"]);
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
  for (const path of [dataDir, workDir]) await rm(path, { recursive: true, force: true });
});

test("a second daemon on the same data directory is refused, and told which one is there", async () => {
  for (const args of [["up"], ["up", "--detach"]]) {
    const { code, stderr } = await atoll(args);
    assert.equal(code, 4);
    assert.match(stderr, /Cannot start the daemon: one is up already at http:\/\/127\.0\.0\.1:\d+, process \d+/);
  }
});

test("a command's input, output and exit code are passed through as they are", async () => {
  const { code, stdout, stderr } = await atoll(["exec", "box", "--", "sh", "-c", "cat; echo err >&2; exit 7"], {
    stdin: "in and out",
  });
  assert.deepEqual({ code, stdout, stderr }, { code: 7, stdout: "in and out", stderr: "err\n" });
});

test("a megabyte of any bytes goes in and comes out unchanged", async () => {
  const file = join(workDir, "bytes");
  await writeFile(file, randomBytes(1_000_000));
  const { stdout, stderr } = await runProgram(
    "/bin/sh",
    [
      ...["-c", '"$0" "$1" exec box -- cat <bytes | cmp - bytes && echo same'],
      ...[process.execPath, join(house, "cli/main.ts")],
    ],
    { cwd: workDir, env },
  );
  assert.deepEqual({ stdout, stderr }, { stdout: "same\n", stderr: "" });
});

test("a command goes on when nobody reads its errors any more", async () => {
  const inside = "yes | head -c 300000 >&2; touch /tmp/went-on; exit 7";
  const { stdout } = await runProgram(
    "/bin/bash",
    [
      ...["-c", `"$0" "$1" exec box -- sh -c "$2" 2>&1 >/dev/null | head -c 4; echo "\${PIPESTATUS[0]}"`],
      ...[process.execPath, join(house, "cli/main.ts"), inside],
    ],
    { env },
  );
  assert.equal(stdout, "y\ny\n7\n");
  await succeeds("exec", "box", "--", "test", "-e", "/tmp/went-on");
});

test("options of a command reach it, and its result is printed as JSON", async () => {
  const args = ["exec", "box", "--json", "--cwd", "/tmp", "--env", "A=1=2", "--", "sh", "-c", 'pwd; echo "$A"'];
  const result = JSON.parse(await succeeds(...args)) as { exitCode: number; stdout: string };
  assert.equal(result.stdout, "/tmp\n1=2\n");
  assert.equal((await atoll(["exec", "box", "--timeout", "1", "--", "sleep", "60"])).code, 124);
  assert.equal((await atoll(["exec", "box", "--", "no-such-program"])).code, 127);
});

test("Ctrl-C stops the command in the sandbox", async () => {
  const child = spawn(process.execPath, [join(house, "cli/main.ts"), "exec", "box", "--", "sleep", "54321"], {
    env,
    stdio: "ignore",
  });
  const ended = new Promise((done) => child.once("exit", done));
  const isThere = async () => (await atoll(["exec", "box", "--", "pgrep", "-f", "sleep 54321"])).code === 0;
  await until("the command runs", isThere);
  child.kill("SIGINT");
  assert.equal(await ended, 130);
  assert.equal(await isThere(), false);
});

test("sandboxes are listed, told and destroyed by name", async () => {
  await succeeds("exec", "other", "--", "true");
  const names = (await succeeds("ls", "--quiet")).trim().split("\n").sort();
  assert.deepEqual(names, ["box", "other"]);
  assert.deepEqual((await json<string[]>("ls", "--quiet")).sort(), names);
  assert.match(await succeeds("ls"), /^ID +STATE[^]*\nother +running +base +basic/m);
  const info = await json<SandboxInfo>("info", "other");
  assert.deepEqual({ id: info.id, state: info.state, run: info.run }, { id: "other", state: "running", run: 1 });
  assert.match(await succeeds("info", "other"), /^other\n +State +running, run 1\n +Image +base/);
  assert.equal(await succeeds("rm", "other"), "other\n");
  assert.deepEqual(await json<SandboxInfo[]>("ls", "--state", "asleep"), []);
  const again = await atoll(["rm", "other"]);
  assert.equal(again.code, 3);
  assert.match(again.stderr, /Cannot remove "other": there is no such sandbox/);
  assert.equal((await atoll(["info", "other"])).code, 3);
});

test("every error is one of the table for a program that asks for JSON", async () => {
  const codes: [code: string, exit: number, ...args: string[]][] = [
    ["FILE_NOT_FOUND", 3, "cp", "nothing-of-this-name", "box:/tmp/"],
    ["NOT_DIRECTORY", 4, "cp", "box:/etc/hostname", "/dev/null/below"],
    ["FILE_NOT_FOUND", 3, "cp", "box:/nothing", "here"],
    ["VALIDATION_FAILED", 2, "port", "box", "--name", "web"],
    ["SANDBOX_NOT_FOUND", 3, "info", "nobody"],
  ];
  for (const [expected, exit, ...args] of codes) {
    const { code, stdout, stderr } = await atoll([...args, "--json"]);
    const { error } = JSON.parse(stderr) as { error: { code: string; message: string } };
    assert.deepEqual([error.code, code, stdout], [expected, exit, ""], args.join(" "));
    assert.match(error.message, /^Cannot /, args.join(" "));
  }
});

test("files and directories are copied both ways, with modes and links", async () => {
  const from = join(workDir, "tree");
  await mkdir(join(from, "deep"), { recursive: true });
  await writeFile(join(from, "deep/run"), "#!/bin/sh\n", { mode: 0o755 });
  await symlink("deep/run", join(from, "link"));
  await succeeds("cp", "tree", "box:/tmp/");
  await succeeds("cp", "tree/.", "box:/tmp/contents");
  await succeeds("cp", "tree/deep/run", "box:/tmp/tree/copy");
  await succeeds("cp", "box:/tmp/tree", "box:/tmp/across");
  const found = await succeeds(
    "exec",
    "box",
    "--",
    "sh",
    "-c",
    "cd /tmp; find tree contents across | sort; stat -c %a tree/copy",
  );
  const below = (name: string, ...more: string[]) => [
    name,
    ...["deep", "deep/run", "link", ...more].sort().map((it) => `${name}/${it}`),
  ];
  const tree = ["copy"];
  assert.equal(
    found,
    [...below("across", ...tree), ...below("contents"), ...below("tree", ...tree), "755", ""].join("\n"),
  );

  await succeeds("cp", "box:/tmp/tree", "back");
  assert.deepEqual((await readdir(join(workDir, "back"), { recursive: true })).sort(), [
    "copy",
    "deep",
    "deep/run",
    "link",
  ]);
  assert.ok((await lstat(join(workDir, "back/link"))).isSymbolicLink());
  await succeeds("cp", "box:/tmp/tree/deep/run", "back");
  assert.equal((await stat(join(workDir, "back/run"))).mode & 0o777, 0o755);
});

test("a tar stream goes in and out", async () => {
  const out = await runProgram(
    "/bin/sh",
    [
      ...["-c", '"$0" "$1" cp box:/tmp/tree - | tar t | sort && tar c tree | "$0" "$1" cp - box:/tmp/streamed'],
      ...[process.execPath, join(house, "cli/main.ts")],
    ],
    { cwd: workDir, env },
  );
  assert.deepEqual(
    { ...out, stdout: out.stdout.split("\n") },
    { code: 0, signal: null, stderr: "", stdout: ["copy", "deep/", "deep/run", "link", ""] },
  );
  assert.equal(await succeeds("exec", "box", "--", "cat", "/tmp/streamed/tree/link"), "#!/bin/sh\n");
});

test("a copy that cannot be made says why, and leaves nothing half done", async () => {
  const rows: [string[], number, RegExp][] = [
    [["nothing", "box:/tmp"], 3, /Cannot stat "nothing": no such file/],
    [["box:/nothing", "."], 3, /"\/nothing"/],
    [["tree", "elsewhere"], 2, /one side is in a sandbox/],
    [["tree", "box:/etc/hostname"], 4, /hostname/],
    [["box:/tmp/tree", "bytes"], 4, /bytes/],
  ];
  const before = await readdir(workDir);
  for (const [args, code, words] of rows) {
    const result = await atoll(["cp", ...args]);
    assert.equal(result.code, code, `${args.join(" ")}: ${result.stderr}`);
    assert.match(result.stderr, words);
  }
  assert.deepEqual(await readdir(workDir), before);
});

test("a program finds the daemon and makes sandboxes", async () => {
  const program = join(workDir, "program.ts");
  await writeFile(
    program,
    `import { getSandbox } from "@atoll/sandbox";
     enum Word { Hello = "hello" }
     const { stdout } = await getSandbox("box").exec("echo", [Word.Hello, ...process.argv.slice(2)]);
     process.stdout.write(stdout);`,
  );
  assert.equal(await succeeds("run", program, "--json", "you"), "hello --json you\n");
});

test("a log is JSON as one value, and as a value a line while it is followed; its last lines too", async () => {
  const program = join(workDir, "prints.ts");
  await writeFile(
    program,
    `import { getSandbox } from "@atoll/sandbox";
     const waits = "until test -e /tmp/go; do sleep 0.05; done";
     const command = "echo one; echo two; echo three; " + waits + "; echo four; exit 3";
     const printing = await getSandbox("box").startProcess(command, { processId: "prints" });
     await printing.waitForLog("three");`,
  );
  await succeeds("run", program);
  const logs = { processId: "prints", stderr: "", offset: 14 };
  assert.deepEqual(await json("logs", "box", "prints"), { ...logs, stdout: "one\ntwo\nthree\n" });
  assert.deepEqual(await json("logs", "box", "prints", "--tail", "2"), { ...logs, stdout: "two\nthree\n" });

  const words = ["logs", "box", "prints", "--json", "--follow", "--tail", "1"];
  const following = spawn(process.execPath, [join(house, "cli/main.ts"), ...words], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const events: Record<string, unknown>[] = [];
  for await (const line of createInterface(following.stdout)) {
    events.push(JSON.parse(line) as Record<string, unknown>);
    if (events.length === 1) await succeeds("exec", "box", "--", "touch", "/tmp/go");
  }
  assert.deepEqual(
    events.map(({ type, data, offset, exitCode }) => [type, exitCode ?? data, offset]),
    [
      ["stdout", "three\n", 14],
      ["stdout", "four\n", 19],
      ["exit", 3, 19],
    ],
  );
  const whole = (await succeeds("logs", "box", "prints", "--json", "--follow")).trimEnd().split("\n");
  const printed = whole.map((line) => (JSON.parse(line) as { data?: string }).data ?? "").join("");
  assert.equal(printed, "one\ntwo\nthree\nfour\n");
});

test("images and the host's state are told, also as JSON", async () => {
  assert.match(await succeeds("image", "ls"), /^NAME +DIGEST[^]*\nbase +sha256:/);
  const [base] = (await json<{ name: string; digest: string }[]>("image", "ls")).filter(({ name }) => name === "base");
  assert.match(base?.digest ?? "", /^sha256:[0-9a-f]{64}$/);
  assert.match(await succeeds("doctor"), /^ok +kernel: /m);
  const { ready, checks } = await json<{ ready: boolean; checks: unknown[] }>("doctor");
  assert.ok(ready && checks.length > 5);
  assert.equal((await atoll(["image", "build", "no-such-image"])).code, 3);
});

test("a killed daemon's sandboxes are found by the next one, and down ends them all", async () => {
  const { pid } = await health();
  await succeeds("exec", "box", "--", "sh", "-c", "echo kept >/workspace/kept");
  process.kill(pid, "SIGKILL");
  await until("the daemon has ended", () => !isAlive(pid));
  const { code, stderr } = await atoll(["ls"]);
  assert.equal(code, 5);
  assert.match(stderr, /Start it with "atoll up"/);

  // Nobody serves, but a sandbox runs: down brings a daemon back to end it.
  assert.match(await succeeds("down"), /Every sandbox sleeps/);
  assert.match(await succeeds("down"), /No daemon is up/);
  await assertNothingLeaked({ ...(await snapshotHost(dataDir)), things: new Map() });

  await succeeds("run", join(programs, "exits.ts"));
  assert.equal(await succeeds("exec", "box", "--", "cat", "/workspace/kept"), "kept\n");
});

test("the token is printed to terminals and programs, and kept from logs", async () => {
  const written = await readFile(join(dataDir, "connection.json"), "utf8");
  const { token } = JSON.parse(written) as { token: string };
  assert.equal((await stat(join(dataDir, "connection.json"))).mode & 0o777, 0o600);
  assert.ok(!(await readFile(join(dataDir, "daemon.log"), "utf8")).includes(token));
  const hash = createHash("sha256").update(token).digest("hex");
  assert.notEqual(hash, token);
});

async function health(): Promise<{ pid: number }> {
  const { url, token } = JSON.parse(await readFile(join(dataDir, "connection.json"), "utf8")) as Record<string, string>;
  const response = await fetch(`${url}/v1/health`, { headers: { authorization: `Bearer ${token}` } });
  return (await response.json()) as { pid: number };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
