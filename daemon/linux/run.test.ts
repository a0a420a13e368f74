import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { test } from "node:test";
import { HostProgramError, run } from "./run.ts";

test("a program gets its arguments as they are, its input and its directory, and gives its output", async () => {
  assert.equal(await run("printf", ["%s|", "a b", "*", "$HOME", ""]), "a b|*|$HOME||");
  const megabyte = "é".repeat(524_288);
  assert.equal(await run("cat", [], { stdin: megabyte }), megabyte);
  assert.equal(await run("cat", []), "");
  assert.equal(await run("pwd", [], { cwd: "/usr" }), "/usr\n");
});

test("it gets the environment that is given and nothing of ours", async () => {
  process.env["ATOLL_RUN_TEST"] = "ours";
  assert.equal(await run("/usr/bin/env", [], { env: { A: "1", B: "x=y" } }), "A=1\nB=x=y\n");
  assert.doesNotMatch(await run("env", []), /ATOLL_RUN_TEST/);
});

test("no signal is ignored or blocked in it, though Node ignores SIGPIPE", async () => {
  const status = await run("cat", ["/proc/self/status"]);
  assert.match(status, /^SigBlk:\s+0+$/m);
  assert.match(status, /^SigIgn:\s+0+$/m);
});

test("it holds none of our descriptors but those that were handed to it", async () => {
  await using file = await open(import.meta.filename);
  const held = await run("sh", ["-c", "ls -l /proc/$$/fd"]);
  assert.doesNotMatch(held, /run\.test\.ts/);
  assert.equal(held.match(/pipe:/g)?.length, 3, `${held}, and we hold ${file.fd}`);
});

test("how it failed is told in its own words", async () => {
  const failed = async (file: string, args: string[]) => {
    const error: unknown = await run(file, args).catch((thrown: unknown) => thrown);
    assert(error instanceof HostProgramError);
    return [error.message, error.exitCode];
  };
  assert.deepEqual(await failed("sh", ["-c", "echo no >&2; exit 3"]), [
    "Cannot run sh -c echo no >&2; exit 3: exit 3: no",
    3,
  ]);
  assert.deepEqual(await failed("sh", ["-c", "kill -TERM $$"]), [
    "Cannot run sh -c kill -TERM $$: ended by SIGTERM",
    null,
  ]);
  assert.deepEqual(await failed("atoll-nothing", []), ["Cannot run atoll-nothing: spawn atoll-nothing ENOENT", null]);
  assert.deepEqual(await failed("/etc/passwd", []), ["Cannot run /etc/passwd: spawn /etc/passwd EACCES", null]);
});

test("its signal ends it, also when what it has started holds its output open", async () => {
  const stop = new AbortController();
  const running = run("sh", ["-c", "sleep 30 & echo $!; wait"], { signal: stop.signal });
  setTimeout(() => stop.abort(new Error("enough")), 50);
  await assert.rejects(running, /enough/);
  await assert.rejects(run("true", [], { signal: stop.signal }), /enough/);
});

test("two hundred at once each give their own, and leave no descriptor and no zombie", async () => {
  const before = readdirSync("/proc/self/fd").length;
  const numbers = Array.from({ length: 200 }, (_, number) => `${number}`);
  assert.deepEqual(await Promise.all(numbers.map((number) => run("echo", ["-n", number]))), numbers);
  await assert.rejects(run("atoll-nothing", []));
  await new Promise((resolve) => setImmediate(resolve)); // sockets close behind the last byte
  assert.equal(readdirSync("/proc/self/fd").length, before);
  assert.equal((await run("ps", ["--ppid", `${process.pid}`, "-o", "stat="])).match(/Z/g), null);
});
