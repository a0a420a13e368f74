import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { until } from "../../test/support/until.ts";
import { run } from "../linux/run.ts";
import { gatewayUid } from "./address.ts";
import type { Slot } from "./network.ts";
import { listenOnHost, openInsider, openTestbed, type Insider, type Testbed } from "./testbed.ts";

const hosts = { "service.example": "127.0.0.1", "other.example": "127.0.0.1" };
let bed: Testbed;
let slot: Slot;
let insider: Insider;
const undo = new AsyncDisposableStack();

before(async () => {
  bed = undo.use(await openTestbed(hosts));
  slot = await bed.network.takeSlot();
  await bed.network.attach(slot, { run: "run1", names: "names1" });
  insider = undo.use(await openInsider(slot));
});
after(() => undo[Symbol.asyncDispose]());

test("a name that the owner gave an address is reached by HTTP", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => {
    socket.on("data", (bytes) =>
      socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes.length}\r\n\r\n${bytes.toString()}`),
    );
  });
  const answer = await insider.run(({ get }, port) => get("service.example", port), server.port);
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n.*GET \/ HTTP\/1\.1\r\nHost: service\.example\r\n/s);
});

test("a protocol in which the server speaks first works, and so does closing one side", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => {
    let came = "";
    socket.write("220 hello\r\n");
    socket.on("data", (bytes) => (came += bytes.toString()));
    socket.on("end", () => socket.end(`you said ${came}`));
  });
  const said = await insider.run(async ({ net, once, addressOf }, port) => {
    const socket = net.connect({ host: await addressOf("service.example"), port, allowHalfOpen: true });
    let all = "";
    socket.setEncoding("utf8").on("data", (text: string) => (all += text));
    await once(socket, "data");
    socket.end("PING");
    await once(socket, "end");
    return all;
  }, server.port);
  assert.equal(said, "220 hello\r\nyou said PING");
});

test("half a line that waits for an answer is not held for ever", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => {
    socket.on("data", (bytes) => socket.end(`got ${bytes.toString()}`));
  });
  const answer = await insider.run(
    async ({ tcp, addressOf }, port) => tcp(await addressOf("service.example"), port, "PING"),
    server.port,
  );
  assert.equal(answer, "got PING");
});

test("64 MiB go through whole in both directions, with slow readers on either side", async () => {
  const size = 64 * 1024 * 1024;
  const chunk = Buffer.alloc(1024 * 1024, "0123456789abcdef");
  const wanted = createHash("sha256");
  for (let at = 0; at < size; at += chunk.length) wanted.update(chunk);
  const hash = wanted.digest("hex");
  let came = 0;
  const seen = createHash("sha256");
  await using server = await listenOnHost("127.0.0.1", (socket) => {
    void (async () => {
      for await (const bytes of socket as AsyncIterable<Buffer>) {
        came += bytes.length;
        seen.update(bytes);
      }
      for (let at = 0; at < size; at += chunk.length) if (!socket.write(chunk)) await once(socket, "drain");
      socket.end();
    })();
  });
  const result = await insider.run(
    async ({ net, once, addressOf }, { port, size }) => {
      const { createHash } = process.getBuiltinModule("node:crypto");
      const socket = net.connect({ host: await addressOf("service.example"), port, allowHalfOpen: true });
      const chunk = Buffer.alloc(1024 * 1024, "0123456789abcdef");
      for (let at = 0; at < size; at += chunk.length) if (!socket.write(chunk)) await once(socket, "drain");
      socket.end();
      const hash = createHash("sha256");
      for await (const bytes of socket) hash.update(bytes as Buffer);
      return hash.digest("hex");
    },
    { port: server.port, size },
  );
  assert.deepEqual([came, seen.digest("hex"), result], [size, hash, hash]);
});

test("the resolver is asked for names, and told truthfully to the sandbox", async () => {
  Object.assign(bed.zone, {
    "public.example": ["203.0.113.7"],
    "six.example AAAA": ["2001:db8::7"],
    "empty.example TXT": [],
    "broken.example": "SERVFAIL",
    "public.example TXT": [{ type: "TXT", name: "public.example", data: ["hello"] }],
    "_http._tcp.public.example SRV": [
      {
        type: "SRV",
        name: "_http._tcp.public.example",
        data: { port: 80, priority: 1, weight: 2, target: "public.example" },
      },
    ],
    "public.example MX": [{ type: "MX", name: "public.example", data: { preference: 5, exchange: "mail.example" } }],
  });
  const answers = await insider.run(async ({ dns }) => {
    const all: Record<string, unknown> = {};
    for (const question of [
      ...["public.example A", "public.example AAAA", "six.example A", "empty.example A", "none.example A"],
      ...["broken.example A", "_http._tcp.public.example SRV", "public.example MX", "public.example HTTPS", "wpad A"],
    ]) {
      const [name, type] = question.split(" ");
      all[question] = await dns(name!, type);
    }
    return all;
  }, null);
  const address = (answers["public.example A"] as { data: string[] }).data[0]!;
  assert.match(address, /^198\.19\.0\.\d+$/);
  assert.match((answers["six.example A"] as { data: string[] }).data[0]!, /^198\.19\.0\.\d+$/);
  assert.deepEqual(answers["public.example AAAA"], { rcode: 0, data: [] });
  assert.deepEqual(answers["empty.example A"], { rcode: 0, data: [] });
  assert.deepEqual(answers["none.example A"], { rcode: 3, data: [] });
  assert.deepEqual(answers["broken.example A"], { rcode: 2, data: [] });
  assert.deepEqual(answers["wpad A"], { rcode: 3, data: [] });
  assert.deepEqual(answers["public.example HTTPS"], { rcode: 0, data: [] });
  assert.deepEqual(answers["public.example MX"], { rcode: 0, data: [{ preference: 5, exchange: "mail.example" }] });
  assert.deepEqual(answers["_http._tcp.public.example SRV"], {
    rcode: 0,
    data: [{ port: 80, priority: 1, weight: 2, target: "public.example" }],
  });
  assert.ok(!bed.asked.some((question) => question.startsWith("wpad")));
});

test("DNS over TCP answers several questions on one connection", async () => {
  const answers = await insider.run(async ({ net, once }) => {
    const { encode, decode } = (await import("dns-packet")).default;
    const socket = net.connect(53, "198.18.0.1");
    await once(socket, "connect");
    const frame = (id: number) => {
      const message = encode({ type: "query", id, flags: 256, questions: [{ name: "service.example", type: "A" }] });
      return Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message]);
    };
    const both = Buffer.concat([frame(1), frame(2)]);
    for (const byte of both) socket.write(Buffer.from([byte]));
    let came = Buffer.alloc(0);
    const ids: number[] = [];
    for await (const chunk of socket) {
      came = Buffer.concat([came, chunk as Buffer]);
      while (came.length >= 2 && came.length >= 2 + came.readUInt16BE(0)) {
        ids.push(decode(came.subarray(2, 2 + came.readUInt16BE(0))).id!);
        came = came.subarray(2 + came.readUInt16BE(0));
      }
      if (ids.length === 2) break;
    }
    return ids;
  }, null);
  assert.deepEqual(answers, [1, 2]);
});

test("the table of connections shows what is open, for whom, and how much went through", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => {
    socket.on("data", () => socket.write("12345")).on("end", () => socket.end());
  });
  await insider.run(async ({ net, once, addressOf }, port) => {
    const socket = net.connect(port, await addressOf("service.example"));
    socket.write("\0abc");
    await once(socket, "data");
    Object.assign(globalThis, { kept: socket });
  }, server.port);
  const [connection] = await bed.network.connections(slot);
  assert.ok(connection && Date.now() - connection.openedAtMs < 60_000);
  assert.deepEqual(
    { ...connection, openedAtMs: 0 },
    { run: "run1", host: "service.example", port: server.port, openedAtMs: 0, bytesUp: 4, bytesDown: 5, state: "open" },
  );
  await insider.run(() => void (globalThis as unknown as { kept: { destroy(): void } }).kept.destroy(), null);
  await until("the connection is gone from the table", async () => (await bed.network.connections()).length === 0);
});

test("a server that refuses or does not exist ends the connection with a reset", async () => {
  const server = await listenOnHost("127.0.0.1");
  await server[Symbol.asyncDispose]();
  const answer = await insider.run(({ get }, port) => get("service.example", port), server.port);
  assert.equal(answer, "ECONNRESET");
});

test("a reset travels through in both directions", async () => {
  const closed = Promise.withResolvers<string>();
  await using server = await listenOnHost("127.0.0.1", (socket) => {
    socket.on("data", (bytes) => {
      if (bytes[1] === 0x61) socket.resetAndDestroy();
      else socket.on("error", (error: NodeJS.ErrnoException) => closed.resolve(error.code!));
      socket.write("go");
    });
  });
  const answer = await insider.run(
    async ({ tcp, addressOf }, port) => tcp(await addressOf("service.example"), port, "\0a"),
    server.port,
  );
  assert.equal(answer, "ECONNRESET");
  await insider.run(async ({ net, once, addressOf }, port) => {
    const socket = net.connect(port, await addressOf("service.example"));
    socket.write("\0b");
    await once(socket, "data");
    socket.resetAndDestroy();
  }, server.port);
  assert.equal(await closed.promise, "ECONNRESET");
});

test("slots cost little: fifty are taken and given back", async () => {
  const slots = await Promise.all(Array.from({ length: 50 }, () => bed.network.takeSlot()));
  assert.equal(new Set(slots.map(({ address }) => address)).size, 50);
  for (const { netnsPath } of slots) assert.ok(existsSync(netnsPath));
  await Promise.all(slots.map((taken) => bed.network.giveSlot(taken)));
  for (const { netnsPath } of slots) assert.ok(!existsSync(netnsPath));
});

test("inside a slot low ports can be bound, loopback works, and nothing but the gateway's route is there", async () => {
  const seen = await insider.run(async ({ net, once, os }) => {
    const { readFileSync } = process.getBuiltinModule("node:fs");
    const server = net.createServer((socket) => socket.end("x")).listen(80, "::1");
    await once(server, "listening");
    server.close();
    return {
      links: Object.entries(os.networkInterfaces()).map(([name, list]) => [name, list?.map(({ address }) => address)]),
      lowest: readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8").trim(),
    };
  }, null);
  assert.deepEqual(seen.links, [
    ["lo", ["127.0.0.1", "::1"]],
    ["eth0", [slot.address]],
  ]);
  assert.equal(seen.lowest, "0");
});

test("the gateway runs as its own uid without any right", async () => {
  const status = readFileSync(`/proc/${await bed.network.gatewayPid()}/status`, "utf8");
  const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(status)?.[1];
  const uid = gatewayUid(bed.options.tag);
  assert.deepEqual(field("Uid")?.split(/\s+/), Array(4).fill(String(uid)));
  assert.deepEqual(field("Gid")?.split(/\s+/), Array(4).fill(String(uid)));
  assert.equal(field("Groups")?.trim(), "");
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) assert.match(field(set)!, /^0+$/, set);
  assert.equal(field("NoNewPrivs"), "1");
});

test("a detached slot has no DNS and its connections are reset at once", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => socket.write("hello"));
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "run2", names: "names2" });
  using other = await openInsider(second);
  await other.run(async ({ net, once, addressOf }, port) => {
    const address = await addressOf("other.example");
    const socket = net.connect(port, address);
    await once(socket, "data");
    Object.assign(globalThis, {
      address,
      ended: once(socket, "error").then(([error]) => (error as { code: string }).code),
    });
  }, server.port);
  await bed.network.detach(second);
  const after = await other.run(async ({ dns, tcp }, port) => {
    const { address, ended } = globalThis as unknown as { address: string; ended: Promise<string> };
    return [await ended, await dns("other.example"), await tcp(address, port, "x")];
  }, server.port);
  assert.deepEqual(after, ["ECONNRESET", { rcode: 5, data: [] }, "ECONNRESET"]);
  await bed.network.giveSlot(second);
});

test("two sandboxes may have the same address for different names", async () => {
  const serve = (text: string) => listenOnHost("127.0.0.1", (socket) => socket.end(text));
  await using server = await serve("there");
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "run3", names: "names3" });
  using other = await openInsider(second);
  const address = await other.run(({ addressOf }) => addressOf("other.example"), null);
  assert.equal(address, "198.19.0.1");
  const first = await insider.run(({ addressOf }) => addressOf("service.example"), null);
  assert.equal(first, "198.19.0.1");
  await other.run(({ tcp }, port) => tcp("198.19.0.1", port, "\0"), server.port);
  assert.equal(server.hits(), 1);
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("names are copied for a fork and forgotten with the sandbox", async () => {
  await bed.network.copyNames("names1", "fork");
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "run4", names: "fork" });
  using other = await openInsider(second);
  const address = await other.run(({ addressOf }) => addressOf("public.example"), null);
  assert.equal(address, await insider.run(({ addressOf }) => addressOf("public.example"), null));
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
  await bed.network.forgetNames("fork");
  await bed.network.forgetNames("fork");
  assert.ok(!readdirSync(`${bed.options.dataDir}/gateway/names`).includes("fork"));
});

test("a gateway that is killed is replaced, and an address still means the same name", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => socket.write("hello"));
  const address = await insider.run(async ({ net, once, addressOf }, port) => {
    const address = await addressOf("other.example");
    const socket = net.connect(port, address);
    await once(socket, "data");
    Object.assign(globalThis, { ended: once(socket.resume(), "close").then(() => "closed") });
    return address;
  }, server.port);
  const pid = await bed.network.gatewayPid();
  process.kill(pid, "SIGKILL");
  assert.equal(await insider.run(() => (globalThis as unknown as { ended: Promise<string> }).ended, null), "closed");
  await until("another gateway is there", async () => (await bed.network.gatewayPid()) !== pid);
  await using silent = await listenOnHost("127.0.0.1", () => {});
  const answer = await insider.run(
    async ({ tcp }, { address, port }) => tcp(address, port, "GET / HTTP/1.1\r\nHost: service.example\r\n\r\n"),
    { address, port: silent.port },
  );
  assert.match(answer, /^HTTP\/1\.1 403 .*Cannot reach other\.example/s);
  assert.equal(await insider.run(({ addressOf }) => addressOf("other.example"), null), address);
});

test("calls made while the gateway is dead are done by the next one", async () => {
  const second = await bed.network.takeSlot();
  process.kill(await bed.network.gatewayPid(), "SIGKILL");
  await bed.network.attach(second, { run: "run5", names: "names5" });
  using other = await openInsider(second);
  assert.equal(await other.run(({ addressOf }) => addressOf("service.example"), null), "198.19.0.1");
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("the next daemon takes the gateway over, keeps what its rows name and ends the rest", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => socket.pipe(socket));
  const stray = await bed.network.takeSlot();
  await insider.run(async ({ net, once, addressOf }, port) => {
    const socket = net.connect(port, await addressOf("service.example"));
    socket.write("\0one");
    await once(socket, "data");
    Object.assign(globalThis, { kept: socket });
  }, server.port);
  const pid = await bed.network.gatewayPid();
  const next = await bed.reopen();
  assert.equal(await next.gatewayPid(), pid);
  assert.ok(existsSync(stray.netnsPath));
  const found = await next.recover([
    { slot: slot.index, run: "run1", names: "names1" },
    { slot: 60_000, run: "gone", names: "gone" },
  ]);
  assert.deepEqual([...found], [[slot.index, slot]]);
  assert.ok(!existsSync(stray.netnsPath));
  const echo = await insider.run(async ({ once }) => {
    const { kept } = globalThis as unknown as { kept: import("node:net").Socket };
    kept.write("two");
    const [bytes] = await once(kept, "data");
    kept.destroy();
    return String(bytes);
  }, null);
  assert.equal(echo, "two");
  // Nobody keeps its sockets now; one that dies is replaced all the same.
  process.kill(pid, "SIGKILL");
  await until("another gateway is there", async () => (await next.gatewayPid()) !== pid);
  assert.equal(await insider.run(({ addressOf }) => addressOf("service.example"), null), "198.19.0.1");
});

test("a gateway of another version is replaced when it is taken over", async () => {
  const pid = await bed.network.gatewayPid();
  await bed.network[Symbol.asyncDispose]();
  const record = `${bed.options.runDir}/gateway/process.json`;
  const text = readFileSync(record, "utf8");
  const { writeFileSync } = await import("node:fs");
  writeFileSync(record, text.replace(/"version":"[^"]*"/, '"version":"older"'));
  const next = await bed.reopen();
  assert.notEqual(await next.gatewayPid(), pid);
  assert.ok(!existsSync(`/proc/${pid}`) || readFileSync(`/proc/${pid}/status`, "utf8").includes("zombie"));
  await next.recover([{ slot: slot.index, run: "run1", names: "names1" }]);
  assert.equal(await insider.run(({ addressOf }) => addressOf("service.example"), null), "198.19.0.1");
});

test("ending the network leaves nothing", async () => {
  const { tag, runDir } = bed.options;
  insider[Symbol.dispose]();
  await bed.network.end();
  assert.deepEqual(
    readdirSync("/run/netns").filter((name) => name.includes(tag)),
    [],
  );
  assert.ok(!(await run("nft", ["list", "tables"])).includes(tag));
  assert.deepEqual(readdirSync(runDir), []);
  const uid = gatewayUid(tag);
  const left = readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid) || !existsSync(`/proc/${pid}/status`)) return false;
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return status.includes(`\nUid:\t${uid}\t`) && !status.includes("zombie");
  });
  assert.deepEqual(left, []);
  await bed.reopen();
});
