import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { kill } from "../../daemon/linux/process.ts";
import { getSandbox, type Connection } from "../../sdk/index.ts";
import { gitServer } from "../support/git-server.ts";
import { assertNothingLeaked, snapshotHost } from "../support/leaks.ts";
import { until } from "../support/until.ts";
import { assertHostIsAsRecorded, readRows } from "./support/records.ts";
import { SteppedDaemon } from "./support/stepped-daemon.ts";

let daemon: SteppedDaemon;
let connection: Connection;

before(async () => {
  daemon = await SteppedDaemon.start({ ATOLL_HOSTS: "local.test=127.0.0.1" });
  connection = daemon.connect();
});

after(async () => {
  connection.close();
  const host = { ...(await snapshotHost(daemon.dataDir)), things: new Map<string, string>() };
  await daemon[Symbol.asyncDispose]();
  await assertNothingLeaked(host);
});

test("100 MB of output reach a slow reader byte for byte over three kill -9 of the daemon", async () => {
  const box = getSandbox(connection, "stream");
  const program =
    'import sys,hashlib\nh=hashlib.sha256()\nfor i in range(1600):\n b=(b"%07d\\n"%i)*8192\n h.update(b)\n sys.stdout.buffer.write(b)\nsys.stderr.write(h.hexdigest())';
  const hash = createHash("sha256");
  let size = 0;
  let lives = 0;
  let restart = Promise.resolve();
  const { exitCode, stderr } = await box.exec("python3", ["-c", program], {
    encoding: "buffer",
    maxBuffer: 1024,
    async onOutput(stream, data: Uint8Array) {
      if (stream !== "stdout") return;
      hash.update(data);
      size += data.length;
      // The reader is slow while the daemon is away: it holds what it has, and the command waits.
      if (size > (lives + 1) * 25_000_000 && lives < 3) {
        lives++;
        await daemon.kill();
        restart = daemon.up();
        await restart;
      }
    },
  });
  await restart;
  assert.deepEqual([exitCode, size, lives], [0, 1600 * 8192 * 8, 3]);
  assert.equal(Buffer.from(stderr).toString(), hash.digest("hex"));
});

test("SIGTERM lets runs and gateway go on, and the next daemon takes both over", async () => {
  const box = getSandbox(connection, "term");
  const counted = box.exec("until [ -e /tmp/enough ]; do echo tick; sleep 0.05; done; echo end");
  counted.catch(() => {}); // told below
  await until("it runs", async () => (await box.exec("pgrep sleep || true")).exitCode === 0);
  const { run } = await box.info();
  const before = await processes();
  await daemon.kill("SIGTERM");
  assert.deepEqual(await processes(), before);
  await daemon.up();
  assert.equal((await box.info()).run, run);
  await box.exec("touch /tmp/enough");
  assert.match((await counted).stdout, /^(tick\n)+end\n$/);
  assert.deepEqual(await processes(), before);
});

/** The gateway and the agents of this daemon, by pid. */
async function processes(): Promise<string[]> {
  const { things } = await snapshotHost(daemon.dataDir);
  return [...things].flatMap(([key, words]) => (/gateway\.cjs|\/run\/atoll\/agent/.test(words) ? [key] : [])).sort();
}

test("kill -9 of the gateway with a download open: the download ends with an error, the next one works", async () => {
  let open = 0;
  const server = createServer((request, response) => {
    if (request.url === "/quick") return void response.end("quick");
    open++;
    response.on("close", () => open--);
    response.write("begun");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const url = `http://local.test:${(server.address() as AddressInfo).port}`;
    const box = getSandbox(connection, "download");
    const download = box.exec("curl", ["--silent", "--show-error", "--max-time", "60", `${url}/slow`]);
    await until("the download is open", () => open === 1);
    const gatewayPid = await findGateway();
    kill(gatewayPid);
    const { exitCode } = await download;
    assert.notEqual(exitCode, 0);
    await until("the host has seen the end", () => open === 0);
    const { stdout } = await box.exec("curl", [
      "--silent",
      "--show-error",
      "--retry",
      "3",
      "--retry-all-errors",
      `${url}/quick`,
    ]);
    assert.equal(stdout, "quick");
    assert.notEqual(await findGateway(), gatewayPid);
    await assertHostIsAsRecorded(daemon);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function findGateway(): Promise<number> {
  const { things } = await snapshotHost(daemon.dataDir);
  const [key] = [...things].find(([, words]) => words.includes("gateway.cjs ")) ?? [];
  return Number(key?.split(" ")[1] ?? 0);
}

test("a daemon killed in the middle of an upload leaves the old file whole", async () => {
  const box = getSandbox(connection, "upload");
  await box.writeFile("/workspace/file", "old");
  const sent = Promise.withResolvers<void>();
  const more = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      controller.enqueue(new Uint8Array(4_000_000));
      sent.resolve();
      await more.promise;
      controller.close();
    },
  });
  const upload = box.writeFile("/workspace/file", body);
  const failed = assert.rejects(upload, { code: "OPERATION_INTERRUPTED" });
  await sent.promise;
  await until(
    "half of it is inside",
    async () =>
      Number(
        (
          await box.exec(
            "du -s --apparent-size -k /workspace /tmp / --exclude=/proc --exclude=/sys -x | awk '{s+=$1} END {print s}'",
          )
        ).stdout,
      ) > 4_000,
  );
  await daemon.kill();
  more.resolve();
  await daemon.up();
  await failed;
  assert.equal((await box.readFile("/workspace/file")).content, "old");
  assert.equal((await box.exec("ls -A /workspace")).stdout, "file\n");
});

test("a checkout goes on while its daemon is killed, and is told to the end", async () => {
  await using server = await gitServer();
  await server.repository("fixture", { "a.txt": "A", "large.bin": Buffer.alloc(8_000_000, "0123456789") });
  const box = getSandbox(connection, "checkout");
  await box.start();
  await daemon.order({ tell: false, killAt: "POST /processes, answered" });
  const checkout = box.gitCheckout(`http://local.test:${server.port}/fixture.git`);
  await daemon.ended;
  await daemon.up();
  assert.equal((await checkout).branch, "main");
  assert.equal((await box.readFile("/workspace/fixture/a.txt")).content, "A");
});

test("of two daemons side by side one is killed and purged, and the other has noticed nothing", async () => {
  const other = await SteppedDaemon.start();
  const theirs = other.connect();
  const host = { ...(await snapshotHost(other.dataDir)), things: new Map<string, string>() };
  try {
    const [mine, its] = [getSandbox(connection, "same-name"), getSandbox(theirs, "same-name")];
    await mine.writeFile("whose", "mine");
    await its.writeFile("whose", "its");
    const before = readRows(daemon.dataDir);
    await other.kill();
    assert.equal((await mine.readFile("whose")).content, "mine");
    await other.up();
    assert.equal((await its.readFile("whose")).content, "its");
    await other.down({ purge: true });
    await assertNothingLeaked(host);
    assert.equal((await mine.exec("cat whose")).stdout, "mine");
    assert.deepEqual(readRows(daemon.dataDir).runs, before.runs);
    await assertHostIsAsRecorded(daemon);
  } finally {
    theirs.close();
    await other[Symbol.asyncDispose]();
  }
});

test("a runtime that is still at work on a run when its daemon is killed is ended, and makes nothing later", async () => {
  const step =
    "runc --root /run/atoll/TAG/runtime --log /run/atoll/TAG/*/bundle/runtime.log --log-format json create --bundle /run/atoll/TAG/*/bundle --pid-file /run/atoll/TAG/*/bundle/pid *, begun";
  for (const stopAfterMs of [0, 3, 6, 10, 15]) {
    const box = getSandbox(connection, `frozen-${stopAfterMs}`);
    await daemon.order({ tell: false, killAt: step, stopAfterMs });
    const started = box.start();
    await daemon.ended;
    await daemon.up();
    await started;
    await assertHostIsAsRecorded(daemon);
    assert.equal((await box.exec("echo well")).stdout, "well\n");
    await box.destroy();
  }
});
