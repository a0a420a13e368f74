import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import { after, before, test } from "node:test";
import { until } from "../../test/support/until.ts";
import { run } from "../linux/run.ts";
import { gatewayUid } from "./address.ts";
import type { Slot } from "./network.ts";
import { listenOnHost, openInsider, openTestbed, type Insider, type Testbed } from "./testbed.ts";

/** Attacks by somebody with all of root's rights in the namespace; the real one has hardly any. */
let bed: Testbed;
let slot: Slot;
let insider: Insider;
const undo = new AsyncDisposableStack();

before(async () => {
  bed = undo.use(await openTestbed({ "service.example": "127.0.0.1" }));
  slot = await bed.network.takeSlot();
  await bed.network.attach(slot, { run: "attacker", names: "attacker" });
  insider = undo.use(await openInsider(slot));
});
after(() => undo[Symbol.asyncDispose]());

const ownAddresses: string[] = Object.values(networkInterfaces())
  .flatMap((list) => list ?? [])
  .filter(({ scopeid }) => !scopeid)
  .map(({ address }) => address);

const ownV4 = ownAddresses.find((address) => address.includes(".") && address !== "127.0.0.1") ?? "127.0.0.1";

test("services of the host are out of reach by address, on whatever they listen", async () => {
  await using v4 = await listenOnHost("0.0.0.0");
  await using v6 = await listenOnHost("::");
  await using loopback = await listenOnHost("127.0.0.1");
  const udp = createSocket("udp4");
  let datagrams = 0;
  udp.on("message", () => datagrams++).bind(0, "0.0.0.0");
  await once(udp, "listening");
  const ports = [v4.port, v6.port, loopback.port];
  const far = ownAddresses.filter((address) => address !== "127.0.0.1" && address !== "::1");
  const results = await insider.run(
    async ({ tcp, udp }, { far, ports, udpPort }) => {
      const all: string[] = [];
      for (const address of [...far, "198.18.0.1", "169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::"]) {
        for (const port of ports) all.push(`${address} ${await tcp(address, port)}`);
        all.push(`${address} ${await udp(address, udpPort)}`);
      }
      return all;
    },
    { far, ports, udpPort: (udp.address() as AddressInfo).port },
  );
  assert.deepEqual(
    results.filter((result) => !/ E[A-Z]+$/.test(result)),
    [],
    "everything is refused at once, nothing hangs",
  );
  assert.deepEqual([v4.hits(), v6.hits(), loopback.hits(), datagrams], [0, 0, 0, 0]);
  udp.close();
});

test("of the gateway only DNS is there, and addresses that no name has lead nowhere", async () => {
  const results = await insider.run(async ({ tcp, udp }) => {
    const all: Record<string, string> = {};
    for (const port of [1, 22, 80, 15001, 65535]) all[`198.18.0.1:${port}`] = await tcp("198.18.0.1", port);
    for (const address of ["198.19.77.77", "198.19.0.0", "198.19.255.255"]) all[address] = await tcp(address, 80, "x");
    for (const address of ["198.18.0.1", "198.19.0.1"]) all[`${address} udp`] = await udp(address, 443);
    return all;
  }, null);
  for (const [target, result] of Object.entries(results))
    assert.match(result, /^(ECONNREFUSED|ECONNRESET|EHOSTUNREACH|EACCES)$/, target);
});

test("resolvers elsewhere are refused", async () => {
  const results = await insider.run(
    async ({ dns }) => [
      await dns("service.example", "A", "8.8.8.8"),
      await dns("service.example", "A", "10.255.255.53"),
    ],
    null,
  );
  for (const result of results) assert.match(JSON.stringify(result), /^"E/);
});

test("many refusals at once are all told", async () => {
  const refusals = await insider.run(async ({ dns }) => {
    const servers = Array.from({ length: 100 }, (_, i) => `203.0.113.${i + 1}`);
    return Promise.all(servers.map((server) => dns("service.example", "A", server)));
  }, null);
  assert.deepEqual(new Set(refusals), new Set(["EHOSTUNREACH"]));
});

test("another sandbox cannot be reached", async () => {
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "victim", names: "victim" });
  using victim = await openInsider(second);
  const port = await victim.run(async ({ net, dgram, once }) => {
    let hits = 0;
    const server = net.createServer(() => hits++).listen(0, "0.0.0.0");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    dgram
      .createSocket("udp4")
      .on("message", () => hits++)
      .bind(port);
    Object.assign(globalThis, { hits: () => hits });
    return port;
  }, null);
  const results = await insider.run(
    async ({ tcp, udp }, { address, port }) => [await tcp(address, port), await udp(address, port)],
    {
      address: second.address,
      port,
    },
  );
  for (const result of results) assert.match(result, /^E/);
  assert.equal(await victim.run(() => (globalThis as unknown as { hits(): number }).hits(), null), 0);
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("a forged source reaches neither the gateway nor the host, nor speaks for another sandbox", async () => {
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "victim", names: "forged" });
  await using server = await listenOnHost("0.0.0.0");
  const before = bed.asked.length;
  bed.zone["forged.example"] = ["203.0.113.9"];
  const query = dnsQuery("forged.example");
  const frames = [
    second.address,
    "127.0.0.1",
    "198.18.0.1",
    "203.0.113.1",
    "0.0.0.0",
    ...ownAddresses.filter((a) => a.includes(".")),
  ].flatMap((source) => [udpFrame(source, "198.18.0.1", 53, query), synFrame(source, ownV4, server.port)]);
  const own = udpFrame(slot.address, "198.18.0.1", 53, dnsQuery("own.example"));
  const sent = await insider.run(({ frame }, frames) => frames.map((hex) => frame(hex)), [...frames, own]);
  assert.ok(sent.every((bytes) => bytes > 0));
  // The last frame is honest: when it was answered, all before it have been looked at.
  await until("the honest question was asked", () => bed.asked.some((question) => question.startsWith("own.example")));
  assert.ok(!bed.asked.slice(before).some((question) => question.startsWith("forged.example")));
  assert.equal(server.hits(), 0);
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("frames of other protocols and odd packets reach nobody", async () => {
  await using server = await listenOnHost("::");
  const target = ownV4;
  const ethernet = (type: string, body: string) => `020000000001020000000001${type}${body}`;
  const arp = (operation: string) =>
    `0001080006040${operation}020000000001c612010102000000000100000000`.padEnd(56, "0");
  const odd = [
    ethernet("0806", arp("001")),
    ethernet("0806", arp("002")),
    ethernet("86dd", `6000000000083aff${"fe80".padEnd(32, "0")}${"ff02".padEnd(31, "0")}18000000000000000`),
    ethernet("8100", `00050800${"45".padEnd(40, "0")}`),
    ethernet("0842", "ff".repeat(60)),
    ...[1, 2, 4, 33, 41, 47, 50, 89, 103, 132, 136, 255].map((protocol) =>
      ipFrame(slot.address, target, protocol, "00".repeat(20)),
    ),
    synFrame(slot.address, target, server.port),
    synFrame(slot.address, "127.0.0.1", server.port),
  ];
  await insider.run(({ frame }, frames) => frames.map((hex) => frame(hex)), odd);
  assert.equal(await insider.run(({ addressOf }) => addressOf("service.example"), null), "198.19.0.1");
  assert.equal(server.hits(), 0);
});

test("a name that points inside is refused with the reason, in the protocol's own words", async () => {
  await using v4 = await listenOnHost("0.0.0.0");
  await using v6 = await listenOnHost("::");
  const inside: Record<string, string> = {
    "loopback.example": "127.0.0.1",
    "any.example": "0.0.0.0",
    "private.example": "10.0.0.1",
    "metadata.example": "169.254.169.254",
    "cgnat.example": "100.64.0.1",
    "hub.example": "198.18.0.1",
    "resolver.example": "127.0.0.53",
  };
  for (const [index, address] of ownAddresses.filter((own) => own.includes(".")).entries())
    inside[`own${index}.example`] = address;
  for (const [name, address] of Object.entries(inside)) bed.zone[name] = [address];
  const six: Record<string, string> = {
    "six.example": "::1",
    "mapped.example": "::ffff:127.0.0.1",
    "ula.example": "fd00::2",
  };
  for (const [name, address] of Object.entries(six)) bed.zone[`${name} AAAA`] = [address];
  for (const name of [...Object.keys(inside), ...Object.keys(six)]) {
    const answer = await insider.run(({ get }, { name, port }) => get(name, port), { name, port: v4.port });
    assert.match(answer, /^HTTP\/1\.1 403 Forbidden\r\n.*Cannot reach .*: its address .* is /s, name);
  }
  bed.zone["mixed.example"] = ["127.0.0.1", "10.0.0.1"];
  assert.match(await insider.run(({ get }, port) => get("mixed.example", port), v6.port), /403/);
  const alert = await insider.run(async ({ tls, once, addressOf }, port) => {
    const socket = tls.connect({ host: await addressOf("loopback.example"), port, servername: "loopback.example" });
    return await once(socket, "secureConnect").then(
      () => "connected",
      (error: { code: string }) => error.code,
    );
  }, v4.port);
  assert.equal(alert, "ERR_SSL_TLSV1_ALERT_ACCESS_DENIED");
  const other = await insider.run(
    async ({ tcp, addressOf }, port) => tcp(await addressOf("loopback.example"), port, "\0"),
    v4.port,
  );
  assert.equal(other, "ECONNRESET");
  assert.deepEqual([v4.hits(), v6.hits()], [0, 0]);
});

test("a name that changes its address between question and connection is judged by the address dialled", async () => {
  await using server = await listenOnHost("127.0.0.1");
  bed.zone["rebind.example"] = ["203.0.113.66"];
  await insider.run(({ addressOf }) => addressOf("rebind.example"), null);
  bed.zone["rebind.example"] = ["127.0.0.1"];
  const answer = await insider.run(({ get }, port) => get("rebind.example", port), server.port);
  assert.match(answer, /403/);
  assert.equal(server.hits(), 0);
});

test("a Host header or TLS name other than the resolved one is refused before the server sees it", async () => {
  let seen = "";
  await using server = await listenOnHost("127.0.0.1", (socket) =>
    socket.on("data", (bytes) => (seen += bytes.toString("latin1"))),
  );
  const host = await insider.run(({ get }, port) => get("service.example", port, "evil.example"), server.port);
  assert.match(host, /^HTTP\/1\.1 403 .*its request is for "evil\.example"/s);
  const name = await insider.run(async ({ tls, once, addressOf }, port) => {
    const socket = tls.connect({ host: await addressOf("service.example"), port, servername: "evil.example" });
    return await once(socket, "secureConnect").then(
      () => "connected",
      (error: { code: string }) => error.code,
    );
  }, server.port);
  assert.equal(name, "ERR_SSL_TLSV1_ALERT_ACCESS_DENIED");
  assert.equal(seen, "");
});

test("a flood of connections is bounded and leaves the others served", async () => {
  await using server = await listenOnHost("127.0.0.1", (socket) => void socket.on("data", () => socket.end("ok")));
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "neighbour", names: "neighbour" });
  using neighbour = await openInsider(second);
  const flood = insider.run(async ({ net, addressOf }, port) => {
    const host = await addressOf("service.example");
    let ended = 0;
    const sockets = Array.from({ length: 3_000 }, () => {
      const socket = net.connect({ host, port });
      socket.on("error", () => {}).on("close", () => ended++);
      return socket;
    });
    Object.assign(globalThis, { sockets });
    const limit = Date.now() + 15_000;
    while (ended < 3_000 - 1_024 && Date.now() < limit) await new Promise((resolve) => setImmediate(resolve));
    return ended;
  }, server.port);
  for (let round = 0; round < 20; round++)
    assert.equal(
      await neighbour.run(
        async ({ tcp, addressOf }, port) => tcp(await addressOf("service.example"), port, "\0"),
        server.port,
      ),
      "ok",
    );
  assert.ok((await flood) >= 3_000 - 1_024, "beyond its share everything is refused");
  assert.ok((await bed.network.connections(slot)).length <= 1_024);
  await insider.run(() => {
    for (const socket of (globalThis as unknown as { sockets: { destroy(): void }[] }).sockets) socket.destroy();
  }, null);
  await bed.network.detach(slot);
  await bed.network.attach(slot, { run: "attacker", names: "attacker" });
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("what is slow to read, on many connections at once, leaves the others served", async () => {
  let came = 0;
  await using server = await listenOnHost("127.0.0.1", (socket) => {
    socket.on("data", (bytes) => {
      came += bytes.length;
      if (bytes.includes(0)) socket.end("ok");
    });
  });
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "neighbour", names: "reader" });
  using neighbour = await openInsider(second);
  const size = await insider.run(async ({ net, addressOf }, port) => {
    const host = await addressOf("service.example");
    const head = "POST / HTTP/1.1\r\nHost: service.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    const body = Buffer.from(head + "1\r\na\r\n".repeat(10_000));
    const sockets = Array.from({ length: 80 }, () => net.connect({ host, port }).on("error", () => {}));
    for (const socket of sockets) socket.end(body);
    Object.assign(globalThis, { sockets });
    return body.length * sockets.length;
  }, server.port);
  const slowest = await neighbour.run(async ({ tcp, addressOf }, port) => {
    let most = 0;
    for (let round = 0; round < 10; round++) {
      const began = performance.now();
      if ((await tcp(await addressOf("service.example"), port, "\0")) !== "ok") return Infinity;
      most = Math.max(most, performance.now() - began);
    }
    return most;
  }, server.port);
  assert.ok(slowest < 1_000, `${slowest} ms`);
  await until("all of it has arrived", () => came >= size);
  assert.equal(came, size + 10);
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("questions by TCP are answered at a rate, and leave the others served", async () => {
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "neighbour", names: "asker" });
  using neighbour = await openInsider(second);
  await neighbour.run(({ addressOf }) => addressOf("service.example"), null);
  const flood = insider.run(async ({ net }) => {
    const { encode } = (await import("dns-packet")).default;
    const question = encode({ type: "query", id: 1, questions: [{ name: "a", type: "A" }] });
    const many = Buffer.concat(
      Array.from({ length: 5_000 }, () => [Buffer.from([0, question.length]), question]).flat(),
    );
    const sockets = Array.from({ length: 16 }, () => net.connect(53, "198.18.0.1").on("error", () => {}));
    for (const socket of sockets) socket.resume().write(many);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    for (const socket of sockets) socket.destroy();
    return sockets.reduce((sum, { bytesRead }) => sum + bytesRead, 0) / (2 + question.length);
  }, null);
  const slowest = await neighbour.run(async ({ addressOf }) => {
    let most = 0;
    for (let round = 0; round < 10; round++) {
      const began = performance.now();
      await addressOf("service.example");
      most = Math.max(most, performance.now() - began);
    }
    return most;
  }, null);
  assert.ok(slowest < 1_000, `${slowest} ms`);
  const answers = await flood;
  assert.ok(answers > 100 && answers < 10_000, `${answers} answers`);
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("questions that the resolver never answers are bounded and leave the others served", async () => {
  bed.zone["slow.example"] = "SILENT";
  for (let index = 0; index < 100; index++) bed.zone[`slow${index}.example`] = "SILENT";
  const second = await bed.network.takeSlot();
  await bed.network.attach(second, { run: "neighbour", names: "patient" });
  using neighbour = await openInsider(second);
  const answers = insider.run(async ({ dns }) => {
    const all = await Promise.all(Array.from({ length: 100 }, (_, index) => dns(`slow${index}.example`)));
    return all.filter((answer) => typeof answer !== "string" && answer.rcode === 2).length;
  }, null);
  assert.equal(await neighbour.run(({ addressOf }) => addressOf("service.example"), null), "198.19.0.1");
  assert.ok((await answers) >= 100 - 64, "beyond its share they fail at once");
  await bed.network.detach(second);
  await bed.network.giveSlot(second);
});

test("the second line: the gateway's own uid cannot reach the host, whatever the gateway believes", async () => {
  await using named = await listenOnHost("127.0.0.1");
  await using own = await listenOnHost("0.0.0.0");
  const dial = async (address: string, port: number) => {
    const uid = gatewayUid(bed.options.tag);
    const program = `require("net").connect(${port}, "${address}").on("connect", () => { console.log("connected"); process.exit() }).on("error", (e) => console.log(e.code))`;
    const user = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
    return (
      await run("setpriv", [...user, `${bed.options.storeDir}/bin/node-${process.version}`, "-e", program])
    ).trim();
  };
  assert.equal(await dial("127.0.0.1", named.port), "connected", "hosts names this address");
  if (ownV4 !== "127.0.0.1") assert.equal(await dial(ownV4, own.port), "ECONNREFUSED");
  assert.equal(await dial("127.0.0.2", own.port), "ECONNREFUSED");
  assert.equal(await dial("::1", own.port), "ECONNREFUSED");
  for (const address of ["10.1.2.3", "169.254.169.254", "192.168.7.7", "198.18.0.1"])
    assert.match(await dial(address, 80), /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/);
  assert.equal(own.hits(), 0);
});

function dnsQuery(name: string): string {
  const labels = name
    .split(".")
    .map((label) => label.length.toString(16).padStart(2, "0") + Buffer.from(label).toString("hex"));
  return `000101000001000000000000${labels.join("")}0000010001`;
}

function udpFrame(source: string, target: string, port: number, payload: string): string {
  const length = (8 + payload.length / 2).toString(16).padStart(4, "0");
  return ipFrame(source, target, 17, `3039${port.toString(16).padStart(4, "0")}${length}0000${payload}`);
}

function synFrame(source: string, target: string, port: number): string {
  const body = Buffer.from(
    `3039${port.toString(16).padStart(4, "0")}0000000100000000500220000000 0000`.replace(" ", ""),
    "hex",
  );
  const address = (text: string) => Buffer.from(text.split(".").map(Number));
  const pseudo = Buffer.concat([address(source), address(target), Buffer.from([0, 6, 0, body.length]), body]);
  body.writeUInt16BE(checksum(pseudo), 16);
  return ipFrame(source, target, 6, body.toString("hex"));
}

/** An Ethernet frame with an IPv4 packet, all sums right: nothing may be saved by a wrong one. */
function ipFrame(source: string, target: string, protocol: number, payload: string): string {
  const header = Buffer.alloc(20);
  header.writeUInt16BE(0x4500, 0);
  header.writeUInt16BE(20 + payload.length / 2, 2);
  header[8] = 64;
  header[9] = protocol;
  header.set(source.split(".").map(Number), 12);
  header.set(target.split(".").map(Number), 16);
  header.writeUInt16BE(checksum(header), 10);
  return `0200000000010200000000010800${header.toString("hex")}${payload}`;
}

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
