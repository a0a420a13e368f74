import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { getSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { type GitServer, gitServer } from "../support/git-server.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";

let daemon: TestDaemon;
let server: GitServer;
let box: Sandbox;
let origin = "";

before(async () => {
  server = await gitServer();
  await server.repository("team/project", { "README.md": "hello\n" });
  await server.commit("team/project", { "README.md": "second\n" });
  await server.commit("team/project", { extra: "x\n" }, "feature");
  await server.repository("private", { secret: "s\n" });
  daemon = await TestDaemon.start({ hosts: { "git.test": "127.0.0.1" } });
  origin = `http://git.test:${server.port}`;
  box = getSandbox(daemon.connect(), "cloner");
});

after(async () => {
  const { tag, dataDir } = await snapshotHost(daemon.dataDir);
  await daemon[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  await assertNothingLeaked({ tag, dataDir, things: new Map() });
});

test("a repository is cloned into the workspace, under its own name", async () => {
  let progress = "";
  const { timestamp, ...result } = await box.gitCheckout(`${origin}/team/project.git`, {
    onProgress: (text) => void (progress += text),
  });
  assert.deepEqual(result, {
    success: true,
    repoUrl: `${origin}/team/project.git`,
    branch: "main",
    targetDir: "/workspace/project",
  });
  assert(!Number.isNaN(Date.parse(timestamp)));
  assert.match(progress, /Cloning into/);
  assert.equal((await box.readFile("/workspace/project/README.md")).content, "second\n");
});

test("a branch, a directory and a depth are what was asked for", async () => {
  const options = { branch: "feature", targetDir: "/workspace/deep/er", depth: 1 };
  const { branch, targetDir } = await box.gitCheckout(`${origin}/team/project.git`, options);
  assert.deepEqual([branch, targetDir], ["feature", "/workspace/deep/er"]);
  const { stdout } = await box.exec("git", ["rev-list", "--count", "HEAD"], { cwd: targetDir });
  assert.equal(stdout, "1\n");
  assert.equal((await box.exists("/workspace/deep/er/extra")).exists, true);
});

test("a repository inside the sandbox is cloned by its path", async () => {
  const { branch } = await box.gitCheckout("/workspace/project", { targetDir: "/workspace/again" });
  assert.equal(branch, "main");
});

for (const [what, path, options, code] of [
  ["a repository that is not there", "/team/none.git", {}, "GIT_REPOSITORY_NOT_FOUND"],
  ["a branch that is not there", "/team/project.git", { branch: "none" }, "GIT_BRANCH_NOT_FOUND"],
  ["a repository that wants a login", "/private.git", {}, "GIT_AUTH_FAILED"],
] as const) {
  test(`${what} is ${code}, with git's own words`, async () => {
    await assert.rejects(box.gitCheckout(origin + path, { ...options, targetDir: "/workspace/never" }), {
      code,
      message: /^Cannot clone "http.*: .*(fatal|remote|could not|not found)/i,
      operation: "gitCheckout",
    });
    assert.equal((await box.exists("/workspace/never")).exists, false);
  });
}

test("a server that is not there is GIT_NETWORK_ERROR", async () => {
  await assert.rejects(box.gitCheckout("http://git.test:1/x.git"), { code: "GIT_NETWORK_ERROR" });
});

test("a directory that holds something is FILE_EXISTS", async () => {
  await assert.rejects(box.gitCheckout(`${origin}/team/project.git`), { code: "FILE_EXISTS" });
});

for (const url of [
  "--upload-pack=touch /tmp/x",
  "ext::sh -c 'touch /tmp/x'",
  "fd::7",
  "relative/path",
  "http://",
  " ",
]) {
  test(`${JSON.stringify(url)} is INVALID_GIT_URL, and runs nothing`, async () => {
    await assert.rejects(box.gitCheckout(url), { code: "INVALID_GIT_URL" });
    assert.equal((await box.exists("/tmp/x")).exists, false);
  });
}

test("a login in the URL works, and is in no error", async () => {
  const url = origin.replace("//", "//user:secret@");
  assert.equal((await box.gitCheckout(`${url}/private.git`)).targetDir, "/workspace/private");
  await assert.rejects(box.gitCheckout(`${url}/private-none.git`), (error: Error) => !error.message.includes("secret"));
});
