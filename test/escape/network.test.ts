import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { after, before, test } from "node:test";
import { attack, assertWell, type Boxes, openBoxes } from "./boxes.ts";
import { ask } from "./run-dir.ts";

const service = "service.example";
let boxes: Boxes;
let host: { ports: number[]; namedPort: number; udpPort: number; hits: string[] };
const undo = new AsyncDisposableStack();

before(async () => {
  const hits: string[] = [];
  const ports = await Promise.all(["127.0.0.1", "0.0.0.0", "::"].map((address) => listen(address, hits)));
  const datagrams = createSocket("udp6").on("message", () => hits.push("udp"));
  datagrams.bind(0, "::");
  await once(datagrams, "listening");
  undo.defer(() => void datagrams.close());
  host = { ports, namedPort: ports[0] ?? 0, udpPort: datagrams.address().port, hits };
  boxes = await openBoxes({ hosts: { [service]: "127.0.0.1" } });
  undo.defer(() => boxes.close());
  await Promise.all([assertWell(boxes.attacker), assertWell(boxes.victim)]);
});
after(() => undo[Symbol.asyncDispose]());

async function listen(address: string, hits: string[]): Promise<number> {
  const server = createServer((socket) => {
    // to the one that has a name the gateway dials before it knows what will be said; there it counts what is said
    if (address !== "127.0.0.1") hits.push(address);
    socket.on("error", () => {});
    socket.on("data", (bytes) => hits.push(bytes.toString("latin1")));
    socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"));
  });
  server.listen(0, address);
  await once(server, "listening");
  undo.defer(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function addressOf(name: "attacker" | "victim"): Promise<string> {
  return (await boxes[name].exec("hostname -I")).stdout.trim();
}

test("nothing but names of the internet leads anywhere, and only as who one is", { timeout: 90_000 }, async () => {
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const neighbour = await addressOf("victim");
  const { port: apiPort } = new URL(boxes.daemon.url);
  const about = {
    service,
    port: host.namedPort,
    ports: [...host.ports, Number(apiPort)],
    udpPort: host.udpPort,
    neighbour,
    addresses: [
      ...own.filter(({ scopeid }) => !scopeid).map(({ address }) => address),
      ...[
        "198.18.0.1",
        "198.18.0.2",
        neighbour,
        "198.19.255.254",
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "fd00:ec2::254",
        "224.0.0.1",
      ],
    ],
  };
  const said = await attack<Record<string, string>>(boxes.attacker, "outward.py", [JSON.stringify(about)]);
  const lies = ["Host of another", "second Host", "absolute target"];
  const expected = (name: string): RegExp => {
    if (name.startsWith("control: ")) return /^done$/;
    if (name.startsWith("name ")) return /^NXDOMAIN$/;
    if (name.startsWith("forged "))
      return /^(silence|EINVAL|EACCES|ENETUNREACH|EADDRNOTAVAIL|ECONNREFUSED|EHOSTUNREACH)$/;
    if (lies.includes(name)) return /^HTTP\/1.1 40[03]$/;
    if (name === "TLS name of another") return /^alert$/;
    if (name.startsWith("ip ")) return /^EPERM$/;
    // nobody is told that a datagram to many was refused
    if (name === "udp 224.0.0.1") return /^(silence|E[A-Z]+)$/;
    return /^E(CONNREFUSED|CONNRESET|HOSTUNREACH|NETUNREACH|ACCES|ADDRNOTAVAIL|NETWORK|INVAL|PERM)$/;
  };
  const wrong = Object.entries(said).filter(([name, outcome]) => !expected(name).test(outcome));
  assert.deepEqual(wrong, []);
  assert.ok(Object.keys(said).length > 70);
  const control = `GET / HTTP/1.1\r\nHost: ${service}\r\n\r\n`;
  assert.deepEqual(host.hits, [control], "only the control has reached the host");
});

test("a flood of connections and questions leaves the neighbour served", { timeout: 90_000 }, async () => {
  const fetchHello = `curl -s --max-time 10 http://${service}:${host.namedPort}/`;
  assert.equal((await boxes.victim.exec(fetchHello)).stdout, "hello");
  const flood = `
import socket, threading, time
address = socket.gethostbyname("${service}")
end = time.monotonic() + 6
counts = {"tried": 0, "refused": 0, "asked": 0}
def dial():
    kept = []
    while time.monotonic() < end:
        one = socket.socket()
        one.settimeout(1)
        counts["tried"] += 1
        try:
            one.connect((address, ${host.namedPort}))
            kept.append(one)
        except OSError:
            counts["refused"] += 1
def ask():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(("198.18.0.1", 53))
    while time.monotonic() < end:
        name = b"n%d" % counts["asked"]
        try:
            one.send(b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len(name)]) + name + b"\\7invalid\\0\\0\\1\\0\\1")
        except OSError:
            pass
        counts["asked"] += 1
threads = [threading.Thread(target=work) for work in [dial, dial, ask]]
for one in threads: one.start()
for one in threads: one.join()
print(counts["tried"], counts["refused"], counts["asked"])`;
  let over = false;
  const flooded = boxes.attacker.exec("python3", ["-c", flood], { timeout: 60_000 }).finally(() => (over = true));
  let served = 0;
  const open: number[] = [];
  while (!over) {
    assert.equal((await boxes.victim.exec(fetchHello)).stdout, "hello");
    served += 1;
    const { text } = await ask(boxes.daemon, "attacker/connections");
    open.push((JSON.parse(text) as { connections: unknown[] }).connections.length);
  }
  const { stdout, stderr } = await flooded;
  const [tried = 0, refused = 0, asked = 0] = stdout.split(" ").map(Number);
  assert.ok(tried > 1_100 && refused > 0 && asked > 1_000, `${stdout}${stderr}`);
  assert.ok(Math.max(...open) > 500 && Math.max(...open) <= 1_024, `${open.join(" ")}`);
  assert.ok(served > 3, `${served}`);
});
