import assert from "node:assert/strict";
import { chmodSync, lstatSync, realpathSync, statfsSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { assertWell, type Boxes, openBoxes, sourceOf, tagOf } from "./boxes.ts";
import { ask, linkDirOf } from "./run-dir.ts";

let boxes: Boxes;
let linkDir: string;
/** A service of the host on a unix socket that anybody may use; it must never hear from the daemon. */
let host: { path: string; hits: () => number };
const undo = new AsyncDisposableStack();

before(async () => {
  boxes = await openBoxes();
  undo.defer(() => boxes.close());
  await Promise.all([assertWell(boxes.attacker), assertWell(boxes.victim)]);
  linkDir = linkDirOf(boxes.daemon, "attacker");
  host = await listenOnHost();
});
after(() => undo[Symbol.asyncDispose]());

async function listenOnHost(): Promise<typeof host> {
  const directory = await mkdtemp(join(tmpdir(), "atoll-host-"));
  chmodSync(directory, 0o777);
  undo.defer(() => rm(directory, { recursive: true }));
  const path = join(directory, "service.sock");
  let hits = 0;
  const server: Server = createServer((socket) => {
    hits += 1;
    socket
      .on("error", () => {})
      .end('HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{"link":1,"pid":1,"startedAtMs":1}      ');
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  chmodSync(path, 0o777);
  undo.defer(() => void server.close());
  return { path, hits: () => hits };
}

/** Does `work` while a program inside has put something in the socket's place, then has all put back. */
async function whileVandal(what: string, target: string, work: (said: string) => Promise<void>): Promise<void> {
  const ready = Promise.withResolvers<string>();
  const args = ["-c", await sourceOf("vandal.py"), what, target];
  const running = boxes.attacker.exec("python3", args, { onOutput: (_stream, text) => ready.resolve(text) });
  const ended = running.then((result) => Promise.reject(new Error(`vandal.py ended: ${result.stderr}`)));
  ended.catch(() => {});
  try {
    await work(await Promise.race([ready.promise, ended]));
  } finally {
    if (what === "fill") chmodSync(linkDir, 0o701);
    else writeFileSync(join(linkDir, "go"), "");
    assert.equal((await running).exitCode, 0);
  }
}

/** More calls at once than the daemon keeps connections, so that most must connect. Gives their statuses and codes. */
async function burst(count = 16): Promise<string[]> {
  const calls = Array.from({ length: count }, () => ask(boxes.daemon, "attacker/files/stat?path=/etc"));
  return (await Promise.all(calls)).map(({ status, text }) =>
    status === 200
      ? `200 ${(JSON.parse(text) as { name: string }).name}`
      : `${status} ${(JSON.parse(text) as { code: string }).code}`,
  );
}

/** Connections that the daemon keeps open for the next call. */
const kept = 4;

function assertUnreachable(outcomes: string[]): void {
  // Connections from before it happened still go to the agent.
  const others = outcomes.filter((outcome) => outcome !== "503 AGENT_UNREACHABLE");
  assert.ok(others.length <= kept, outcomes.join(", "));
  for (const outcome of others) assert.equal(outcome, "200 etc");
}

test("a symlink in the socket's place leads to no socket of the host, the daemon's own or another sandbox's", async () => {
  const targets = {
    "a service of the host": host.path,
    "the daemon's API": `/run/atoll/${tagOf(boxes.daemon)}/api.sock`,
    "another sandbox": join(linkDirOf(boxes.daemon, "victim"), "agent.sock"),
    "another sandbox, relatively": `../../${linkDirOf(boxes.daemon, "victim").split("/").at(-2)}/link/agent.sock`,
    "through the daemon's own view": `/proc/self/root${host.path}`,
  };
  for (const [name, target] of Object.entries(targets)) {
    await whileVandal("symlink", target, async () => {
      const link = join(linkDir, "agent.sock");
      assert.ok(lstatSync(link).isSymbolicLink());
      assert.ok(lstatSync(realpathSync(link)).isSocket(), `followed from the host it would be ${name}`);
      assertUnreachable(await burst());
    });
    await assertWell(boxes.attacker);
  }
  assert.equal(host.hits(), 0);
  await new Promise<void>((resolve) =>
    connect(host.path, resolve)
      .on("error", () => {})
      .resume(),
  );
  assert.equal(host.hits(), 1, "whoever connects is counted");
  await assertWell(boxes.victim);
});

test("what is not a listening socket is refused in words, and the agent answers again when it is back", async () => {
  for (const what of ["directory", "fifo", "file", "datagram", "nothing"]) {
    await whileVandal(what, "", async () => {
      assertUnreachable(await burst());
      const { text } = await ask(boxes.daemon, "attacker/files/stat?path=/etc").catch(() => ({ text: "" }));
      if (text.includes("AGENT_UNREACHABLE")) assert.match(text, /Cannot reach the sandbox's agent: .*suggestion/);
    });
    await assertWell(boxes.attacker);
  }
});

test("a link that changes places with the socket between open and connect is never followed", async () => {
  const before = host.hits();
  await whileVandal("race", host.path, async () => {
    const outcomes: string[] = [];
    while (outcomes.length < 600) outcomes.push(...(await burst(40)));
    const seen = new Set(outcomes);
    assert.deepEqual(seen, new Set(["200 etc", "503 AGENT_UNREACHABLE"]), "it was met in both states");
  });
  assert.equal(host.hits(), before);
  await assertWell(boxes.attacker);
});

test("the socket's directory takes a few names and one page for each, not the host's memory", async () => {
  await whileVandal("fill", "", async (said) => {
    const [files, bytes] = said.split("; ");
    assert.match(files ?? "", /^\d+ files: No space left/);
    assert.ok(Number.parseInt(files ?? "") < 16, files);
    assert.match(bytes ?? "", /^\d+ bytes: No space left/);
    assert.ok(Number.parseInt(bytes ?? "") <= 64 * 1024, bytes);
    const { bsize, blocks, files: inodes, ffree } = statfsSync(linkDir);
    assert.deepEqual([bsize * blocks, inodes, ffree], [64 * 1024, 16, 0], "it is full now");
    assert.deepEqual(
      await burst(),
      Array.from({ length: 16 }, () => "200 etc"),
    );
  });
  await assertWell(boxes.attacker);
});

test("a sandbox without a way to its agent is stopped, destroyed and woken like any other", async () => {
  const box = boxes.box("mute");
  for (const how of ["stop", "destroy"] as const) {
    await box.exec("rm /run/atoll/link/agent.sock && ln -s /run/atoll/nowhere /run/atoll/link/agent.sock");
    assert.equal((await box[how]()).existed, true);
    await assertWell(box);
  }
  await box.destroy();
});
