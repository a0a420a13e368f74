import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { type ProgramOptions, type ProgramResult, runProgram } from "../test/support/program.ts";

const house = resolve(import.meta.dirname, "..");
const programs = join(house, "test/fixtures/programs");

/** A daemon that is named, so that none is looked for on this machine; port 9 is never served. */
const env = { PATH: process.env["PATH"], ATOLL_URL: "http://127.0.0.1:9", ATOLL_TOKEN: "0123456789abcdef" };

function atoll(args: string[], options: ProgramOptions = {}): Promise<ProgramResult> {
  return runProgram(process.execPath, [join(house, "cli/main.ts"), ...args], { env, ...options });
}

test("help goes to stdout and is a success", async () => {
  const { code, stdout, stderr } = await atoll(["--help"]);
  assert.equal(code, 0);
  assert.match(stdout, /^Atoll: /);
  assert.equal(stderr, "");
});

test("a mistake is told on stderr, in one line without colours where nobody would see them", async () => {
  const { code, stdout, stderr } = await atoll(["ls", "--nonsense"]);
  assert.equal(code, 2);
  assert.equal(stdout, "");
  assert.equal(stderr, 'atoll: Cannot follow "atoll ls": it has no option "--nonsense". See atoll ls --help\n');
});

test("with --json a mistake is told as any error is, and the exit code stays", async () => {
  const rows: [string[], RegExp][] = [
    [["ls", "--json", "--nonsense"], /^Cannot follow "atoll ls": it has no option "--nonsense"\. See atoll ls --help$/],
    [["info", "--json"], /^Cannot follow "atoll info": the id is missing/],
    [["frobnicate", "--json"], /^Cannot do "frobnicate"/],
    [["logs", "box", "web", "--json", "--tail", "x"], /^Cannot use --tail "x"/],
  ];
  for (const [args, message] of rows) {
    const { code, stdout, stderr } = await atoll(args);
    assert.deepEqual([code, stdout], [2, ""], args.join(" "));
    const { error } = JSON.parse(stderr) as { error: { code: string; message: string } };
    assert.equal(error.code, "VALIDATION_FAILED");
    assert.match(error.message, message);
  }
  assert.match(
    (await atoll(["exec", "--", "ls", "--json"])).stderr,
    /^atoll: Cannot follow/,
    "the command's own --json",
  );
});

test("what a terminal cannot keep is refused, and why, before anything is asked", async () => {
  const rows: [string[], RegExp][] = [
    [
      ["exec", "-t", "--timeout", "5s", "box", "--", "ls"],
      /^atoll: Cannot use --timeout with --tty: a terminal has no time/,
    ],
    [["exec", "-tn", "box", "--", "ls"], /^atoll: Cannot use --no-stdin with --tty: what is typed/],
    [
      ["exec", "-t", "--json", "box", "--", "ls"],
      /^{"error":{"code":"VALIDATION_FAILED","message":"Cannot use --json with --tty: /,
    ],
    [["shell", "box", "--json"], /^{"error":{"code":"VALIDATION_FAILED","message":"Cannot use --json with a shell: /],
  ];
  for (const [args, words] of rows) {
    const { code, stdout, stderr } = await atoll(args);
    assert.deepEqual([code, stdout], [2, ""], args.join(" "));
    assert.match(stderr, words);
  }
});

test("a daemon that is not there is an error with a remedy, as text and as JSON", async () => {
  const [asText, asJson] = await Promise.all([atoll(["ls"]), atoll(["ls", "--json"])]);
  assert.equal(asText.code, 5);
  assert.match(
    asText.stderr,
    /^atoll: Cannot reach the daemon at http:\/\/127\.0\.0\.1:9: .*\n {7}Start it with "atoll up"/,
  );
  assert.equal(asJson.code, 5);
  const { error } = JSON.parse(asJson.stderr) as { error: { code: string; suggestion: string } };
  assert.equal(error.code, "SANDBOX_UNAVAILABLE");
});

test("an illegal id is refused before anything is asked", async () => {
  const { code, stderr } = await atoll(["info", "not/an id"]);
  assert.equal(code, 2);
  assert.match(stderr, /"not\/an id"/);
});

test("a reader that has gone is no error", async () => {
  const child = spawn(process.execPath, [join(house, "cli/main.ts"), "--help"], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy();
  const [[code], stderr] = await Promise.all([once(child, "exit"), text(child.stderr)]);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
});

test("a program gets its arguments, the daemon's address, and passes its exit code on", async () => {
  const { code, stdout, stderr } = await atoll(["run", join(programs, "exits.ts"), "9", "--json", "--", "-h"]);
  assert.deepEqual({ code, stderr, stdout }, { code: 9, stderr: "", stdout: '["9","--json","--","-h"]\n' });
  const hosts = await atoll(["run", "--url", "http://elsewhere:1", "--token", "a-token", join(programs, "hosts.mts")]);
  assert.equal(hosts.stdout, "http://elsewhere:1 a-token\n");
});

test("a program that is not there is not found", async () => {
  const { code, stderr } = await atoll(["run", "nothing.ts"]);
  assert.equal(code, 3);
  assert.equal(stderr, 'atoll: Cannot run "nothing.ts": there is no such file\n');
});

test("a signal to atoll run is a signal to the program", async () => {
  const child = spawn(process.execPath, [join(house, "cli/main.ts"), "run", join(programs, "waits.ts")], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = child.stdout.setEncoding("utf8");
  const [ready] = (await once(lines, "data")) as [string];
  assert.equal(ready, "ready\n");
  const rest = text(lines);
  child.kill("SIGTERM");
  assert.deepEqual(await once(child, "exit"), [7, null]);
  assert.equal(await rest, "got SIGTERM\n");
});

test("a program reads standard input", async () => {
  const { stdout } = await atoll(["run", join(programs, "reads.ts")], { stdin: "some input" });
  assert.equal(stdout, "10 bytes\n");
});

test("a reader who is slow gets all that was printed", async () => {
  const sandboxes = Array.from({ length: 20_000 }, (_, at) => ({ id: `box-${at}` }));
  await using server = createHttpServer((_, response) => response.end(JSON.stringify({ sandboxes })));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as { port: number };
  const { stdout } = await runProgram(
    "/bin/sh",
    [
      ...["-c", '"$0" "$1" ls --quiet --url "$2" | (sleep 3; cat)'],
      ...[process.execPath, join(house, "cli/main.ts"), `http://127.0.0.1:${port}`],
    ],
    { env },
  );
  assert.equal(stdout, sandboxes.map(({ id }) => `${id}\n`).join(""));
});

test("a port that speaks something else is told, not waited for", async () => {
  await using server = createServer((socket) => void socket.resume().end("SSH-2.0-OpenSSH_9.2\r\n"));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as { port: number };
  const { code, stderr } = await atoll(["ls", "--url", `http://127.0.0.1:${port}`]);
  assert.equal(code, 5);
  assert.match(stderr, /Cannot reach the daemon/);
});
