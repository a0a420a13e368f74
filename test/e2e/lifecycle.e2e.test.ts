import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Connection, getSandbox, SandboxError, type SandboxOptions } from "../../sdk/index.ts";
import { TestDaemon } from "../support/daemon.ts";
import { until } from "../support/until.ts";

let daemon: TestDaemon;
let connection: Connection;

before(async () => {
  daemon = await TestDaemon.start();
  connection = daemon.connect();
});

after(() => daemon[Symbol.asyncDispose]());

const stateOf = async (id: string) => (await getSandbox(connection, id).info()).state;

test("a sandbox is there when it is asked for, sleeps, and continues where it was", async () => {
  const box = getSandbox(connection, "continues", { labels: { kind: "test" } });
  await box.exec("mkdir -p deep && cd deep && export COLOUR=blue && echo kept > file");
  assert.deepEqual([(await box.info()).state, (await box.info()).run], ["running", 1]);
  await box.stop();
  assert.equal(await stateOf("continues"), "asleep");
  assert.equal((await box.info()).lastEnd?.reason, "asked");
  const { stdout } = await box.exec("pwd; echo $COLOUR; cat file");
  assert.equal(stdout, "/workspace/deep\nblue\nkept\n");
  assert.equal((await box.info()).run, 2);
});

test("an idle sandbox goes to sleep by itself, a kept one stays", async () => {
  const idle = getSandbox(connection, "idle", { sleepAfter: 1 });
  const kept = getSandbox(connection, "kept", { sleepAfter: 1, keepAlive: true });
  await Promise.all([idle.exec("true"), kept.exec("true")]);
  await until("the idle sandbox sleeps", async () => (await stateOf("idle")) === "asleep");
  assert.equal((await idle.info()).lastEnd?.reason, "idle");
  assert.equal(await stateOf("kept"), "running");
  await kept.setKeepAlive(false);
  await until("the other sleeps too", async () => (await stateOf("kept")) === "asleep");
});

test("a busy command is never put to sleep, also when nobody reads it", async () => {
  const box = getSandbox(connection, "busy", { sleepAfter: 1 });
  const gone = new AbortController();
  const response = await box.exec("timeout 4 sh -c 'while :; do :; done'; echo done > /workspace/done", {
    stream: true,
  });
  await response.body?.cancel();
  gone.abort();
  await until("the command has ended", async () => (await box.exists("/workspace/done")).exists || undefined);
  assert.equal((await box.info()).run, 1);
});

test("a read that waits holds its sandbox awake", async () => {
  const box = getSandbox(connection, "waiting", { sleepAfter: 1 });
  const { stdout } = await box.exec("sleep 3; echo woke");
  assert.equal(stdout, "woke\n");
  assert.equal((await box.info()).run, 1);
});

test("a lifetime ends also a kept sandbox", async () => {
  const box = getSandbox(connection, "mortal", { maxLifetime: 1, keepAlive: true });
  await box.exec("true");
  await until("it has ended", async () => (await stateOf("mortal")) === "asleep");
  assert.equal((await box.info()).lastEnd?.reason, "lifetime");
});

test("many callers start a sandbox once", async () => {
  const results = await Promise.all(Array.from({ length: 20 }, () => getSandbox(connection, "shared").exec("echo $$")));
  assert.equal(results.filter(({ success }) => success).length, 20);
  assert.equal((await getSandbox(connection, "shared").info()).run, 1);
});

test("a stop and a wake that meet leave one of them, whole", async () => {
  const box = getSandbox(connection, "meeting");
  await box.exec("echo 1 > /workspace/n");
  for (let round = 0; round < 3; round++) {
    const [, read] = await Promise.all([box.stop(), box.readFile("/workspace/n").catch((error: Error) => error)]);
    if (!(read instanceof Error)) assert.equal(read.content, "1\n");
  }
  assert.equal((await box.readFile("/workspace/n")).content, "1\n");
});

test("processes get the signal and a little time before a sandbox sleeps", async () => {
  const box = getSandbox(connection, "graceful");
  const command =
    "trap 'echo saved > /workspace/saved; exit 0' TERM; touch /workspace/ready; while :; do sleep 0.05; done";
  const running = box.exec(command);
  await until("the trap is set", async () => (await box.exists("/workspace/ready")).exists);
  await box.stop();
  await running;
  assert.equal((await box.readFile("/workspace/saved")).content, "saved\n");
});

test("a command under way when its sandbox is stopped ends as stopped", async () => {
  const box = getSandbox(connection, "stopped");
  const running = box.exec("touch /workspace/on; trap '' TERM; while :; do sleep 0.1; done");
  await until("it runs", async () => (await box.exists("/workspace/on")).exists);
  await box.stop();
  const result = await running;
  assert.deepEqual([result.success, result.reason], [false, "stopped"]);
});

test("destroy leaves nothing, and the name is free at once", async () => {
  const box = getSandbox(connection, "fleeting");
  await box.exec("echo secret > /workspace/file");
  assert.deepEqual(await box.destroy(), { existed: true });
  assert.deepEqual(await box.destroy(), { existed: false });
  await assert.rejects(box.info(), { code: "SANDBOX_NOT_FOUND" });
  assert.equal((await box.exists("/workspace/file")).exists, false);
  assert.equal((await box.info()).run, 1);
});

test("stop and destroy of an unknown name succeed and say so", async () => {
  assert.deepEqual(await getSandbox(connection, "nobody").stop(), { existed: false });
  assert.deepEqual(await getSandbox(connection, "nobody").destroy(), { existed: false });
});

test("settings may come first: they make the sandbox", async () => {
  const box = getSandbox(connection, "set-first");
  await box.setLabels({ of: "test" });
  const { state, labels } = await box.info();
  assert.deepEqual([state, labels], ["none", { of: "test" }]);
  await getSandbox(connection, "set-env-first").setEnvVars({ A: "1" });
  await box.setEnvVars({ FIRST: "1" });
  assert.equal((await box.exec("echo $FIRST")).stdout, "1\n");
});

test("with persistence none the next run begins from the image", async () => {
  const box = getSandbox(connection, "forgetful", { persistAcrossSessions: { type: "none" } });
  await box.writeFile("/workspace/file", "x");
  await box.stop();
  assert.equal((await box.exists("/workspace/file")).exists, false);
});

const keep = (...paths: string[]): SandboxOptions => ({ persistAcrossSessions: { type: "directory", paths } });

test("with directories to keep the next run begins from the image and them", async () => {
  const box = getSandbox(
    connection,
    "selective",
    keep("/workspace/project", "/usr/share/doc", "/etc/app.conf", "/none"),
  );
  await box.exec("bash", ["-c", "ls -A /workspace / /usr/share/doc /etc > /workspace/before"]);
  const before = (await box.readFile("/workspace/before")).content;
  const gone = (await box.exec("ls /usr/share/doc | head -n 1")).stdout.trim();
  await box.exec(
    [
      "mkdir -p /workspace/project/src /opt/junk && echo mine > /workspace/project/src/file && echo junk > /opt/junk/file",
      `rm -r /usr/share/doc/${gone} && echo set > /etc/app.conf`,
      "rm /etc/os-release /bin/ls && echo forged > /etc/debian_version && mv /etc/issue /workspace/project/issue",
      "echo changed > /workspace/project/issue && export LOST=1 && cd /workspace/project",
    ].join(" && "),
  );
  for (const paths of [2, 3]) {
    await box.stop();
    const look =
      "cat /workspace/project/src/file /etc/app.conf; pwd; echo ${LOST-unset}; ls -d /opt/junk /workspace/before /none";
    const { stdout } = await box.exec(`${look}; ls -d /usr/share/doc/${gone}; cat /workspace/project/issue`);
    assert.equal(stdout, "mine\nset\n/workspace\nunset\nchanged\n");
    await box.exec("bash", ["-c", "ls -A /workspace / /usr/share/doc /etc > /tmp/now"]);
    const now = (await box.readFile("/tmp/now")).content.split("\n");
    const missing = before.split("\n").filter((name) => !now.includes(name) && name !== "before");
    assert.deepEqual(missing, [gone]);
    assert.doesNotMatch((await box.exec("cat /etc/debian_version /etc/issue")).stdout, /forged|changed/);
    assert.equal((await box.info()).run, paths);
  }
});

test("which directories are kept can be changed, and the list that was given last is what holds", async () => {
  await getSandbox(connection, "relisted", keep("/srv/a", "/srv/b")).exec("mkdir -p /srv/{a,b,c}");
  const later = getSandbox(connection, "relisted", keep("/srv/b", "/srv/c"));
  await later.exec("true");
  await later.stop();
  assert.equal((await later.exec("ls /srv")).stdout, "b\nc\n");
  await later.stop();
  assert.equal((await getSandbox(connection, "relisted", keep("/srv/c")).exec("ls /srv")).stdout, "c\n");
  await assert.rejects(getSandbox(connection, "relisted", { persistAcrossSessions: { type: "disk" } }).exec("true"), {
    code: "VALIDATION_FAILED",
  });
  await assert.rejects(getSandbox(connection, "whole", keep("/")).exec("true"), {
    code: "VALIDATION_FAILED",
  });
});

test("a daemon that is killed while it removes what is not kept: the next one finishes it before the sandbox begins again", async () => {
  await using own = await TestDaemon.start();
  const box = getSandbox(own.connect(), "large", { ...keep("/srv/kept"), instance: "standard-1" });
  await box.exec("mkdir -p /srv/kept && echo mine > /srv/kept/file && rm /etc/os-release");
  await box.exec("mkdir /junk; for d in $(seq 30); do mkdir /junk/$d; (cd /junk/$d; seq 1000 | xargs touch); done");
  const [key] = await readdir(join(own.dataDir, "pool/disks"));
  const junk = join(own.dataDir, "pool/disks", key!, "upper/junk");
  const left = async () => (await readdir(junk).catch(() => [])).length;
  // not by the SDK, which would ask the next daemon again
  const headers = { authorization: `Bearer ${own.token}` };
  const stopped = fetch(`${own.url}/v1/sandboxes/large/stop`, { method: "POST", headers }).catch(() => {});
  await until("some of it is removed", async () => (await left()) < 30);
  await own.kill("SIGKILL");
  await stopped;
  const before = await left();
  assert.ok(before > 0, "not all was removed before the kill");
  await own.up();
  const there = getSandbox(own.connect(), "large", keep("/srv/kept"));
  const { stdout } = await there.exec("cat /srv/kept/file; ls -d /junk; test -e /etc/os-release && echo back");
  assert.equal(stdout, "mine\nback\n");
  assert.equal((await there.info()).run, 2);
});

test("a service is started again in what was kept", async () => {
  const box = getSandbox(connection, "served", keep("/srv/site"));
  await box.exec("mkdir -p /srv/site && echo hello > /srv/site/index.html");
  await box.startProcess("python3 -m http.server 8000", { cwd: "/srv/site", restart: "wake", processId: "web" });
  await box.stop();
  await until("it answers", async () => {
    const { stdout } = await box.exec("curl -s http://127.0.0.1:8000/");
    return stdout === "hello\n" || undefined;
  });
  await box.destroy();
});

test("memory exhausted is told in words, and the sandbox goes on", async () => {
  const box = getSandbox(connection, "hungry", { instance: "lite" });
  const result = await box.exec("python3", ["-c", "x = bytearray(600 * 1024 * 1024)"]);
  assert.equal(result.exitCode, 137);
  assert.equal(result.reason, "memory");
  assert.match(result.stderr, /limit 256 MiB/);
  assert.equal((await box.exec("echo alive")).stdout, "alive\n");
  assert.equal((await box.info()).run, 1);
});

test("a full disk is told in words, and space can be made again", async () => {
  const box = getSandbox(connection, "full", { instance: { vcpu: 0.25, memoryMiB: 512, diskMB: 100 } });
  const filled = await box.exec("head -c 300M /dev/urandom > /workspace/fill");
  assert.equal(filled.success, false);
  assert.match(filled.stderr, /No space left|quota exceeded/i);
  await assert.rejects(box.writeFile("/workspace/more", "x".repeat(20_000_000)), { code: "NO_SPACE" });
  await box.exec("rm /workspace/fill");
  await box.exec("head -c 300M /dev/urandom > /workspace/fill");
  await box.stop(); // also one that was full when it fell asleep
  assert.equal((await box.exec("rm /workspace/fill")).exitCode, 0);
  assert.equal((await box.exec("head -c 300M /dev/urandom > /workspace/fill")).success, false); // the limit is the same
  await box.exec("rm /workspace/fill");
  await box.writeFile("/workspace/more", "x");
  assert.equal((await box.readFile("/workspace/more")).content, "x");
});

test("a fork bomb stops at the limit of processes", async () => {
  const box = getSandbox(connection, "bomb", { instance: "lite" });
  await box.exec("bomb() { bomb | bomb & }; bomb; sleep 1", { timeout: 5_000 });
  // While it rages, a command is refused in words or runs; what the bomb left in the background can be ended.
  const tried = await box.exec("echo", ["alive"]).catch((error: unknown) => error);
  if (tried instanceof Error) assert.ok(SandboxError.is(tried, "LIMIT_REACHED"), tried.message);
  const again = await until("a command runs again", async () => {
    await box.killAllProcesses();
    return box.exec("echo", ["alive"]).catch(() => undefined);
  });
  assert.equal(again.stdout, "alive\n");
  await box.stop();
});

test("labels and variables of a sandbox can be changed while it sleeps", async () => {
  const box = getSandbox(connection, "changing", { envVars: { A: "1", B: "2" } });
  await box.exec("true");
  await box.stop();
  await box.setLabels({ team: "web" });
  await box.setEnvVars({ A: "3", B: undefined, C: "4" });
  assert.equal((await box.exec('echo "$A|${B-unset}|$C"')).stdout, "3|unset|4\n");
  const { sandboxes } = { sandboxes: await connection.listSandboxes({ labels: { team: "web" } }) };
  assert.deepEqual(
    sandboxes.map(({ id }) => id),
    ["changing"],
  );
});

test("what the disk was made with cannot be changed", async () => {
  await getSandbox(connection, "fixed").exec("true");
  await assert.rejects(getSandbox(connection, "fixed", { persistAcrossSessions: { type: "none" } }).exec("true"), {
    code: "VALIDATION_FAILED",
  });
});
