import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gitServer } from "./git-server.ts";
import { runProgram } from "./program.ts";

async function clone(into: string, ...args: string[]) {
  const env = { PATH: process.env["PATH"], GIT_TERMINAL_PROMPT: "0", HOME: into, LC_ALL: "C" };
  return runProgram("git", ["clone", "--quiet", ...args, into], { env });
}

test("a repository of the git server is cloned whole, shallow, and by branch", async () => {
  await using server = await gitServer();
  await using stack = new AsyncDisposableStack();
  const into = await mkdtemp(join(tmpdir(), "atoll-clone-"));
  stack.defer(() => rm(into, { recursive: true }));
  // More than the 1 MiB beyond which git sends its request in chunks and gzip.
  const large = Buffer.alloc(2_000_000, "0123456789abcdef");
  const url = await server.repository("group/fixture", {
    "a.txt": "A",
    "deep/large.bin": large,
    "bin/run": "#!/bin/sh",
  });
  const hash = await server.commit("group/fixture", { "b.txt": "B" }, "feature/x");

  assert.deepEqual(await clone(join(into, "whole"), url), { code: 0, signal: null, stdout: "", stderr: "" });
  assert.deepEqual(await readFile(join(into, "whole/deep/large.bin")), large);
  assert.ok(!existsSync(join(into, "whole/b.txt")));
  assert.equal((await clone(join(into, "branch"), "--depth", "1", "--branch", "feature/x", url)).code, 0);
  assert.equal(await readFile(join(into, "branch/b.txt"), "utf8"), "B");
  const head = await runProgram("git", ["-C", join(into, "branch"), "rev-parse", "HEAD"]);
  assert.equal(head.stdout.trim(), hash);
  assert.ok(server.requests.some((line) => line.startsWith("POST /group/fixture.git/git-upload-pack")));
});

test("an unknown repository, an unknown branch and a missing login fail in git's own words", async () => {
  await using server = await gitServer();
  await using stack = new AsyncDisposableStack();
  const into = await mkdtemp(join(tmpdir(), "atoll-clone-"));
  stack.defer(() => rm(into, { recursive: true }));
  const url = await server.repository("private", { a: "" });
  assert.match((await clone(join(into, "1"), `${server.url}/none.git`)).stderr, /repository .* not found/);
  assert.match((await clone(join(into, "2"), url)).stderr, /could not read Username/);
  const withLogin = url.replace("http://", "http://user:secret@");
  assert.match((await clone(join(into, "3"), "--branch", "none", withLogin)).stderr, /Remote branch none not found/);
  assert.equal((await clone(join(into, "4"), withLogin)).code, 0);
});
