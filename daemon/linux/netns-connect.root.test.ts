import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { inNamespace } from "./namespace.ts";
import { connectInNetns } from "./netns-connect.ts";
import { run } from "./run.ts";

const name = `atest-${randomBytes(3).toString("hex")}`;
const path = `/run/netns/${name}`;
const cleanup = new AsyncDisposableStack();

before(async () => {
  await run("ip", ["netns", "add", name]);
  cleanup.defer(async () => void (await run("ip", ["netns", "del", name])));
  await run("ip", ["-n", name, "link", "set", "lo", "up"]);
});

after(() => cleanup.disposeAsync());

/** A server that says where it listens, in the namespace or in ours. Gives its port. */
async function listens(host: string, inside: boolean, port = 0): Promise<number> {
  const program = `
    const server = net.createServer((socket) => socket.end("${inside ? "inside" : "outside"} ${host}"));
    server.listen(${port}, "${host}", () => console.log(server.address().port));`;
  const start = () => spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  const child = inside ? inNamespace("net", path, start) : start();
  cleanup.defer(async () => {
    child.kill();
    await once(child, "exit");
  });
  return Number(await once(child.stdout, "data"));
}

const heard = async (address: "127.0.0.1" | "::1", port: number) => {
  const socket = connectInNetns(path, address, port);
  if (!socket) return undefined;
  let text = "";
  for await (const chunk of socket) text += String(chunk);
  return text;
};

test("it is the namespace's loopback, never the host's", async () => {
  const port = await listens("127.0.0.1", false);
  assert.equal(await heard("127.0.0.1", port), undefined);
  await listens("127.0.0.1", true, port);
  assert.equal(await heard("127.0.0.1", port), "inside 127.0.0.1");
  assert.equal(await heard("::1", port), undefined);
  await listens("::1", true, port);
  assert.equal(await heard("::1", port), "inside ::1");
});

test("who wants to read at once is given each piece, and the end as ever", async () => {
  const port = await listens("127.0.0.1", true);
  const pieces: string[] = [];
  const socket = connectInNetns(path, "127.0.0.1", port, (chunk) => pieces.push(chunk.toString()));
  socket?.on("data", () => pieces.push("twice"));
  await once(socket!, "end");
  assert.equal(pieces.join(""), "inside 127.0.0.1");
});

test("nobody is connected with himself where nobody listens", async () => {
  const range = "/proc/sys/net/ipv4/ip_local_port_range";
  await run("ip", ["netns", "exec", name, "sh", "-c", `echo 50000 50003 > ${range}`]);
  const tries = Array.from({ length: 400 }, (_, at) => connectInNetns(path, "127.0.0.1", 50_000 + (at % 4)));
  for (const socket of tries) socket?.destroy();
  assert.equal(tries.filter((socket) => socket !== undefined).length, 0);
  await run("ip", ["netns", "exec", name, "sh", "-c", `echo 32768 60999 > ${range}`]);
});

test("who takes no more callers, and a namespace that has gone, keep nobody waiting and leave nothing open", async () => {
  const open = () => readdirSync("/proc/self/fd").length;
  const before = open();
  for (let tries = 0; tries < 100; tries++) {
    assert.equal(connectInNetns("/run/netns/atest-nobody", "127.0.0.1", 80), undefined);
    assert.equal(connectInNetns(path, "127.0.0.1", 1), undefined);
  }
  assert.equal(open(), before);
});
