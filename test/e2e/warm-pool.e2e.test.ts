import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { identify, stateOf } from "../../daemon/linux/process.ts";
import { openImages } from "../../daemon/storage/images.ts";
import { type Connection, followLifecycle, getSandbox, Sandbox, type SandboxOptions } from "../../sdk/index.ts";
import { SteppedDaemon } from "../crash/support/stepped-daemon.ts";
import { TestDaemon } from "../support/daemon.ts";
import { until } from "../support/until.ts";
import { journalOf, runRowOf, runRows, untilWarm, warmRows } from "../support/warm-pool.ts";

const size = 3;
const env = { ATOLL_WARM_POOL: String(size) };
let daemon: TestDaemon;
let connection: Connection;

before(async () => {
  daemon = await TestDaemon.start({ env, hosts: { "web.test": "127.0.0.1" } });
  connection = daemon.connect();
});

after(() => daemon[Symbol.asyncDispose]());

let names = 0;

/** A new sandbox on a run that waited, and that run's row as it was before. */
async function claim(options: SandboxOptions = {}) {
  const waiting = await untilWarm(daemon.dataDir, size);
  const name = `claims-${++names}`;
  const box = getSandbox(connection, name, options);
  await box.exec("true", []);
  const row = runRowOf(daemon.dataDir, name)!;
  const former = waiting.find(({ id }) => id === row.id);
  assert.ok(former, `${name} has a run that did not wait`);
  return { box, name, row, former };
}

test("runs wait for new names, and nobody sees them", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  assert.deepEqual(await connection.listSandboxes(), []);
  for (const { sandbox_key: key } of waiting) assert.deepEqual(journalOf(daemon.dataDir, key), []);
});

test("a new name gets one that waited, as its first run, and the place is filled again", async () => {
  const { box, name, row, former } = await claim({ labels: { kind: "claimed" }, envVars: { COLOUR: "blue" } });
  const { stdout } = await box.exec(
    'hostname; cat /etc/hostname; grep -c " $HOSTNAME$" /etc/hosts; echo $ATOLL_SANDBOX $COLOUR; pwd',
  );
  assert.equal(stdout, `${name}\n${name}\n1\n${name} blue\n/workspace\n`);
  const info = await box.info();
  assert.deepEqual([info.state, info.run, info.labels], ["running", 1, { kind: "claimed" }]);
  assert.deepEqual([row.warm, row.pid, row.sandbox_key], [null, former.pid, former.sandbox_key]);
  assert.ok(row.waited_ms > 0, "its lifetime begins with the claim");
  assert.deepEqual(
    (await connection.listSandboxes()).map(({ id }) => id),
    [name],
  );
  const story = () => journalOf(daemon.dataDir, row.sandbox_key);
  await until("the journal is written", () => story().length >= 3);
  assert.deepEqual(story().slice(0, 3), ["created", "run.start", "process"]);
  assert.ok((await untilWarm(daemon.dataDir, size)).every(({ id }) => id !== row.id));
});

test("to those who follow its class a claim is a start, and told once", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  const story: string[] = [];
  class Claimed extends Sandbox {
    onStart() {
      story.push("start");
    }
    onStop({ reason }: { reason: string }) {
      story.push(reason);
    }
  }
  const namespace = { connection, sandboxClass: Claimed };
  const end = new AbortController();
  const onCallbackError = (error: unknown) => story.push(String(error));
  await followLifecycle({ bindings: { Claimed: namespace }, signal: end.signal, onCallbackError });
  const box = getSandbox(namespace, "claims-followed");
  await box.exec("true", []);
  const { id } = runRowOf(daemon.dataDir, "claims-followed")!;
  assert.ok(waiting.some((row) => row.id === id));
  await box.stop();
  await until("the end is told", () => story.length === 2);
  assert.deepEqual(story, ["start", "asked"]);
  end.abort();
  await box.destroy();
});

test("what it keeps is there after sleep, on its one disk", async () => {
  const { box, row } = await claim();
  await box.exec("cd /tmp && export COLOUR=red && echo kept > /workspace/file");
  await box.stop();
  assert.equal(
    (await box.exec("pwd; echo $COLOUR; cat /workspace/file; hostname")).stdout,
    `/tmp\nred\nkept\n${box.id}\n`,
  );
  assert.equal((await box.info()).run, 2);
  assert.notEqual(runRowOf(daemon.dataDir, box.id)?.id, row.id);
  await box.destroy();
  const disks = await readdir(join(daemon.dataDir, "pool/disks"));
  assert.ok(!disks.includes(row.sandbox_key));
});

/** What a program can see of what it may and where it is; what differs from run to run is left out. */
const look = [
  "id; hostname; cat /etc/hostname /etc/resolv.conf; sed s/^198.*\\\\s/ADDRESS\\ / /etc/hosts",
  "env | grep -vE '^(_|ATOLL_PROCESS)=' | sort; ulimit -a; cat /proc/self/oom_score_adj",
  "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status /proc/1/status",
  "cat /proc/1/limits /proc/self/uid_map; df -k /dev/shm /run/atoll/link | grep tmpfs",
  "cut -d' ' -f4-6,8- /proc/self/mountinfo | sed 's/lowerdir.*//' | sort",
  "grep . /proc/sys/user/max_* /proc/sys/net/ipv4/ip_unprivileged_port_start",
  "cd /sys/fs/cgroup; for name in cpu/cpu.shares cpu/cpu.cfs_* memory/memory.*limit* pids/pids.max cpu.weight cpu.max memory.max memory.swap.max pids.max; do grep -H . $name 2>/dev/null; done",
  "ls -la / /dev /run /workspace | sed -E 's/[A-Z][a-z]{2} +[0-9]+ [0-9:]+//; s/ +[0-9]+ +/ /g; /^total/d'",
].join("; ");

const instances: Record<string, SandboxOptions> = {
  "as they are by default": {},
  lite: { instance: "lite" },
  "standard-2": { instance: "standard-2", cpuBurst: false },
  "of its own": { instance: { vcpu: 1.5, memoryMiB: 300, diskMB: 100 }, cpuBurst: false },
  "without a disk that is kept": { persistAcrossSessions: { type: "none" } },
};

for (const [what, options] of Object.entries(instances)) {
  test(`from inside it cannot be told from a run that was started for it: ${what}`, async () => {
    const { box } = await claim(options);
    const claimed = (await box.exec("bash", ["-c", look])).stdout;
    assert.match(claimed, /pids.max/);
    await box.stop();
    const started = (await box.exec("bash", ["-c", look])).stdout;
    const plain = (text: string) => text.replaceAll(/[0-9a-f]{12}/g, "ID").split("\n");
    assert.deepEqual(plain(claimed), plain(started));
    await box.destroy();
  });
}

test("a sandbox that keeps directories is started for itself: its disk is mounted in another way", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  const box = getSandbox(connection, "keeps", { persistAcrossSessions: { type: "directory", paths: ["/srv/kept"] } });
  const { stdout } = await box.exec("mkdir /srv/kept; grep -o redirect_dir=[a-z]* /proc/self/mountinfo");
  assert.equal(stdout, "redirect_dir=nofollow\n");
  const row = runRowOf(daemon.dataDir, "keeps")!;
  assert.ok(!waiting.some(({ id }) => id === row.id));
  await box.destroy();
});

test("the limits of its instance really hold", async () => {
  const { box } = await claim({ instance: { vcpu: 0.25, memoryMiB: 200, diskMB: 100 } });
  const hungry = await box.exec("python3", ["-c", "x = bytearray(400 * 1024 * 1024)"]);
  assert.deepEqual([hungry.exitCode, hungry.reason], [137, "memory"]);
  assert.match(hungry.stderr, /limit 200 MiB/);
  const full = await box.exec("head -c 300M /dev/urandom > /workspace/fill");
  assert.match(full.stderr, /No space left|quota exceeded/i);
  const shared = await box.exec("head -c 150M /dev/zero > /dev/shm/fill; stat -c %s /dev/shm/fill; rm /dev/shm/fill");
  assert.match(shared.stdout, /^10[0-9]{7}\n$/); // 100 MiB
  await box.destroy();
});

test("the limit of processes of its instance really holds", async () => {
  const { box } = await claim({ instance: "lite" });
  // dash gives up at once, where bash tries for half a minute
  const many = await box.exec("dash", ["-c", "for i in $(seq 600); do sleep 300 & done"]);
  assert.match(many.stderr, /Cannot fork/);
  await box.destroy();
});

test("it speaks through the gateway, as itself", async () => {
  const server = createServer((_, response) => response.end("from outside"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { box } = await claim();
    const { port } = server.address() as AddressInfo;
    assert.equal((await box.exec(`curl -sS http://web.test:${port}`)).stdout, "from outside");
    await box.destroy();
  } finally {
    server.close();
  }
});

test("many who ask at once get a run each, those that wait and others", async () => {
  const waiting = new Set((await untilWarm(daemon.dataDir, size)).map(({ id }) => id));
  const boxes = Array.from({ length: 10 }, (_, index) => getSandbox(connection, `at-once-${index}`));
  const results = await Promise.all(
    boxes.map((box) => box.exec("hostname; touch /workspace/only; ls /workspace | wc -l")),
  );
  assert.deepEqual(
    results.map(({ stdout }) => stdout),
    boxes.map(({ id }) => `${id}\n1\n`),
  );
  const runs = boxes.map(({ id }) => runRowOf(daemon.dataDir, id)!.id);
  assert.equal(new Set(runs).size, boxes.length);
  assert.equal(runs.filter((id) => waiting.has(id)).length, size);
  assert.ok((await Promise.all(boxes.map((box) => box.info()))).every(({ run }) => run === 1));
  await Promise.all(boxes.map((box) => box.destroy()));
});

test("many callers of one new name share one run, and a destroy that meets them leaves nothing", async () => {
  await untilWarm(daemon.dataDir, size);
  const box = getSandbox(connection, "contested");
  const pids = await Promise.all(Array.from({ length: 8 }, () => box.exec("hostname")));
  assert.ok(pids.every(({ stdout }) => stdout === "contested\n"));
  assert.equal((await box.info()).run, 1);
  for (let round = 0; round < 5; round++) {
    const met = getSandbox(connection, `met-${round}`);
    await Promise.all([met.exec("true").catch(() => {}), met.destroy()]);
    await met.destroy();
    assert.equal(runRowOf(daemon.dataDir, met.id), undefined);
  }
  await box.destroy();
});

test("one that has died is replaced, and not given to anybody", async () => {
  const [first, ...others] = await untilWarm(daemon.dataDir, size);
  process.kill(first!.pid, "SIGKILL");
  const box = getSandbox(connection, "after-a-death");
  assert.equal((await box.exec("hostname")).stdout, "after-a-death\n");
  assert.notEqual(runRowOf(daemon.dataDir, box.id)?.id, first!.id);
  await until("the dead one is gone", () => runRows(daemon.dataDir).every(({ id }) => id !== first!.id));
  assert.ok((await untilWarm(daemon.dataDir, size)).some(({ id }) => others.some((other) => other.id === id)));
  await box.destroy();
});

test("one that does not answer is ended, and the caller gets another without noticing", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  for (const { pid } of waiting) process.kill(pid, "SIGSTOP");
  const box = getSandbox(connection, "after-a-silence", { instance: "lite" });
  assert.equal((await box.exec("hostname; ulimit -u")).stdout, "after-a-silence\n448\n");
  assert.equal((await box.info()).run, 1);
  const row = runRowOf(daemon.dataDir, box.id)!;
  assert.ok(waiting.every(({ id }) => id !== row.id));
  await box.destroy();
  for (const { pid } of waiting) if (identify(pid)) process.kill(pid, "SIGCONT");
});

test("a sandbox that has URLs already is started as any other", async () => {
  await untilWarm(daemon.dataDir, size);
  const box = getSandbox(connection, "with-a-url");
  await box.exposePort(8000);
  assert.equal((await box.exec("hostname")).stdout, "with-a-url\n");
  assert.equal((await box.getExposedPorts()).length, 1);
  await box.destroy();
});

test("the next daemon takes over what waits, whichever way the last one went", async () => {
  for (const signal of ["SIGKILL", "SIGTERM"] as const) {
    const waiting = await untilWarm(daemon.dataDir, size);
    await daemon.kill(signal);
    await daemon.up();
    const box = getSandbox(connection, `next-${signal.toLowerCase()}`);
    assert.equal((await box.exec("hostname")).stdout, `${box.id}\n`);
    const { id } = runRowOf(daemon.dataDir, box.id)!;
    assert.ok(waiting.some((row) => row.id === id));
    assert.equal((await box.info()).run, 1);
    await box.destroy();
  }
  await untilWarm(daemon.dataDir, size);
  env.ATOLL_WARM_POOL = "0";
  await daemon.kill("SIGKILL");
  await daemon.up();
  assert.deepEqual(warmRows(daemon.dataDir), []);
  const box = getSandbox(connection, "without-a-pool");
  assert.equal((await box.exec("hostname")).stdout, "without-a-pool\n");
  await box.destroy();
  assert.deepEqual(warmRows(daemon.dataDir), []);
  env.ATOLL_WARM_POOL = String(size);
  await daemon.kill("SIGKILL");
  await daemon.up();
});

test("going down ends what waits; nothing of it stays on the disk", async () => {
  const waiting = await untilWarm(daemon.dataDir, size);
  const processes = waiting.map(({ pid }) => identify(pid)!);
  await daemon.down();
  assert.deepEqual(runRows(daemon.dataDir), []);
  assert.ok(processes.every((process) => stateOf(process) !== "alive"));
  await daemon.up();
  const left = new Set(await readdir(join(daemon.dataDir, "pool/disks")));
  assert.ok(waiting.every(({ sandbox_key: key }) => !left.has(key)));
});

test("when the host is short of memory what waits goes, before anybody is refused, and comes back later", async () => {
  await using stepped = await SteppedDaemon.start({ ATOLL_WARM_POOL: "2" });
  const boxes = stepped.connect();
  await untilWarm(stepped.dataDir, 2);
  await stepped.order({ tell: false, availableRatio: 0.07 });
  await untilWarm(stepped.dataDir, 0);
  assert.equal((await getSandbox(boxes, "still").exec("hostname")).stdout, "still\n");
  await stepped.order({ tell: false, availableRatio: 0.04 });
  await assert.rejects(getSandbox(boxes, "refused").exec("true"), { code: "CAPACITY_EXCEEDED" });
  assert.deepEqual(warmRows(stepped.dataDir), []);
  await stepped.order({ tell: false });
  await untilWarm(stepped.dataDir, 2);
  boxes.close();
});

test("when the base image is built anew, runs of the new one take the place of the old ones", async () => {
  const store = await mkdtemp("/var/tmp/atoll-warm-store-");
  await chmod(store, 0o711);
  try {
    const images = await openImages(store);
    const first = await images.importTree(await makeTree(store, "one"), "base");
    {
      await using own = await TestDaemon.start({ env: { ATOLL_WARM_POOL: "1", ATOLL_STORE_DIR: store } });
      const boxes = own.connect();
      const [old] = await untilWarm(own.dataDir, 1);
      assert.ok(old?.warm?.includes(first.digest));
      await assert.rejects(images.remove(first.digest), { code: "RESOURCE_BUSY" });
      const second = await images.importTree(await makeTree(store, "two"), "base");
      const box = getSandbox(boxes, "on-the-second"); // at once, perhaps before the pool has noticed
      assert.equal((await box.readFile("/which")).content, "two");
      assert.equal((await box.info()).image.digest, second.digest);
      await until("one of the second waits", () =>
        warmRows(own.dataDir).some(({ warm }) => warm?.includes(second.digest)),
      );
      assert.ok(runRows(own.dataDir).every(({ id }) => id !== old?.id));
      await until("nobody needs the first any more", async () => (await images.prune()).length > 0 || undefined);
      boxes.close();
    }
  } finally {
    await rm(store, { recursive: true, force: true });
  }
});

/** The least that a sandbox can be made of: nothing but the agent runs in it. */
async function makeTree(store: string, which: string): Promise<string> {
  const tree = join(store, "building", `tree-${which}`);
  await mkdir(join(tree, "etc"), { recursive: true });
  await writeFile(join(tree, "which"), which);
  await writeFile(join(tree, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  return tree;
}
