import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import type { ExecResult } from "../../sdk/index.ts";
import { assertWell, type Boxes, openBoxes, sourceOf } from "./boxes.ts";

let boxes: Boxes;
before(async () => {
  boxes = await openBoxes();
  await Promise.all([assertWell(boxes.attacker), assertWell(boxes.victim)]);
});
after(() => boxes.close());

/** The neighbour and the daemon are as they were, and the attacker's agent answers. */
async function assertAllWell(): Promise<void> {
  await assertWell(boxes.victim);
  await assertWell(boxes.attacker);
  assert.equal((await boxes.connection.listSandboxes({ state: "running" })).length, 2);
}

type Taken = { count: number; why: string };

/** Does `work` while the attacker holds as much of `what` as it could get. */
async function whileTaken(what: string, work: (taken: Taken) => Promise<void>): Promise<void> {
  const ready = Promise.withResolvers<Taken>();
  const release = Promise.withResolvers<void>();
  const stdin = new ReadableStream<Uint8Array>({
    pull: (controller) => release.promise.then(() => controller.close()),
  });
  const args = ["-c", await sourceOf("exhaust.py"), what];
  const onOutput = (stream: string, text: string) => {
    if (stream === "stdout") ready.resolve(JSON.parse(text) as Taken);
  };
  const running = boxes.attacker.exec("python3", args, { stdin, timeout: 60_000, onOutput });
  running.then(({ stderr }) => ready.reject(new Error(stderr)), ready.reject);
  try {
    await work(await ready.promise);
  } finally {
    release.resolve();
    await running;
  }
}

const budgets: Record<string, { why: RegExp; most: number; again: string }> = {
  instances: { why: /^(EMFILE|ENFILE)$/, most: 128, again: "ctypes.CDLL(None).inotify_init() >= 0 or 1/0" },
  watches: {
    why: /^(enough|ENOSPC)$/,
    most: 131_072,
    again: "libc = ctypes.CDLL(None); libc.inotify_add_watch(libc.inotify_init(), b'/tmp', 2) >= 0 or 1/0",
  },
  terminals: { why: /^(ENOSPC|EIO|ENOENT|EAGAIN)$/, most: 256, again: "os.openpty()" },
  pipes: { why: /^(enough|EPERM|EMFILE)$/, most: 2_000, again: "fcntl.fcntl(os.pipe()[0], 1032) >= 65536 or 1/0" },
  files: { why: /^EMFILE$/, most: 65_536, again: "[os.open('/dev/null', 0) for _ in range(500)]" },
};

for (const [what, { why, most, again }] of Object.entries(budgets)) {
  test(`a sandbox that takes all ${what} leaves its neighbour its own`, { timeout: 60_000 }, async () => {
    await whileTaken(what, async (taken) => {
      assert.match(taken.why, why, `${taken.count}`);
      assert.ok(taken.count > 50 && taken.count <= most, `${taken.count}`);
      const other = await boxes.victim.exec("python3", ["-c", `import ctypes, fcntl, os; ${again}`]);
      assert.equal(other.exitCode, 0, `after ${taken.count}: ${other.stderr}`);
      await assertWell(boxes.victim);
    });
    await assertAllWell();
  });
}

test("no key of the kernel is taken, so none is felt", async () => {
  await whileTaken("keys", async (taken) => assert.deepEqual(taken, { count: 0, why: "EPERM" }));
});

test(
  "a fork bomb stops at the sandbox's limit, which a new command is told in words",
  { timeout: 90_000 },
  async () => {
    // Of a lite one 512 processes are the limit, for which its memory suffices.
    const bomber = boxes.box("bomber", { instance: "lite" });
    await assertWell(bomber);
    // It keeps what it has: each of its processes sleeps until the test is over.
    const bomb = bomber.exec(
      "python3",
      ["-c", "import os, time\nwhile True:\n  try:\n    os.fork()\n  except OSError:\n    time.sleep(1000)"],
      { timeout: 15_000 },
    );
    let refused: { message: string } | undefined;
    while (refused === undefined) {
      const outcome = await Promise.race([bomb, bomber.exec("true", []).catch((error: Error) => error)]);
      if (outcome instanceof Error) refused = outcome;
      else assert.notEqual((outcome as ExecResult).timedOut, true, "the limit is met before the bomb's end");
      await assertWell(boxes.victim);
    }
    assert.match(refused.message, /^Cannot start a process: the sandbox has as many as it may/);
    assert.equal((await bomber.stat("/etc")).type, "directory", "the agent answers");
    assert.equal((await bomb).timedOut, true, "and ends the whole tree");
    await assertWell(bomber);
    await bomber.destroy();
    await assertAllWell();
  },
);

test("a sandbox that takes all memory is told so, and its neighbour keeps its own", { timeout: 60_000 }, async () => {
  const eat = "kept = []\nfor _ in range(64): kept.append(bytearray(b'x' * (16 << 20)))";
  const eaten = await boxes.attacker.exec("python3", ["-c", eat]);
  assert.deepEqual([eaten.exitCode, eaten.signal, eaten.reason], [137, "SIGKILL", "memory"]);
  assert.match(eaten.stderr, /memory.*256 MiB/);
  const shm = await boxes.attacker.exec("head -c 300M /dev/zero > /dev/shm/x; rm -f /dev/shm/x");
  assert.match(shm.stderr, /No space left|[Kk]illed/);
  await assertAllWell();
});

test("a sandbox that fills its disk is told so, and its neighbour can write", { timeout: 60_000 }, async () => {
  const filled = await boxes.attacker.exec("head -c 400M /dev/urandom > /workspace/large; stat -c %s /workspace/large");
  assert.match(filled.stderr, /Disk quota exceeded|No space left/);
  assert.ok(Number(filled.stdout) < 140_000_000, filled.stdout);
  await assert.rejects(boxes.attacker.writeFile("/workspace/more", new Uint8Array(1_000_000)), { code: "NO_SPACE" });
  await boxes.victim.writeFile("/workspace/more", new Uint8Array(1_000_000));
  await boxes.attacker.exec("rm /workspace/large");
  await boxes.attacker.writeFile("/workspace/more", "again");
  await assertAllWell();
});

test(
  "a sandbox that makes as many files as it can leaves its neighbour the room for its own",
  { timeout: 60_000 },
  async () => {
    const made = await boxes.attacker.exec(
      "python3",
      [
        "-c",
        "import os\nos.mkdir('/tmp/many')\nfor n in range(60000): open(f'/tmp/many/{n}' + 'x' * 200, 'x').write('x' * 1000)",
      ],
      { timeout: 40_000 },
    );
    assert.ok(made.exitCode === 0 || /quota|No space/.test(made.stderr) || made.timedOut, made.stderr.slice(-300));
    await boxes.victim.writeFile("/workspace/more", new Uint8Array(1_000_000));
    await boxes.attacker.exec("rm -rf /tmp/many");
    await assertAllWell();
  },
);

test("the daemon's process is none of what the kernel kills when a sandbox takes too much", () => {
  const score = (pid: number) => Number(readFileSync(`/proc/${pid}/oom_score_adj`, "utf8"));
  assert.ok(score(boxes.daemon.pid) <= score(process.pid));
  assert.doesNotMatch(boxes.daemon.log(), /"level":[56]0/, "nothing went wrong in it");
});
