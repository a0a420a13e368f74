import { createSocket } from "node:dgram";
import { createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { answerDns, refuseDns, type DnsSource } from "./dns.ts";
import { dnsConnectionLimit } from "./limit.ts";
import { decide } from "./policy.ts";
import type { Resolver } from "./resolver.ts";
import type { GatewaySandbox, Log } from "./sandbox.ts";

export type World = {
  /** Who speaks from an address; undefined: nobody we know, to be refused. */
  sandboxAt(address: string): GatewaySandbox | undefined;
  resolver(): Resolver;
  log: Log;
};

/** Serves DNS on the hub's sockets. Both must be listening already. */
export function serveDns(udp: number, tcp: number, world: World): void {
  const socket = createSocket("udp4");
  // A reply that cannot be sent is a reply lost, as on any network; the asker asks again.
  socket.on("error", (error) => world.log("warn", "DNS socket", { error: error.message }));
  socket.on("message", (message, { address, port }) => {
    const sandbox = world.sandboxAt(address);
    const send = (reply: Buffer | undefined) => reply && socket.send(reply, port, address, () => {});
    if (!sandbox) return send(refuseDns(message));
    void answerDns(message, sourceFor(sandbox, world), true).then(send);
  });
  socket.bind({ fd: udp });

  const server = createServer((connection) => {
    void serveConnection(connection, world).catch(() => connection.destroy());
  });
  server.on("error", (error) => world.log("error", "DNS listener", { error: error.message }));
  server.listen({ fd: tcp, backlog: 512 });
}

/** Answers the queries of a connection in their order, one at a time. */
async function serveConnection(connection: Socket, world: World): Promise<void> {
  connection.on("error", () => {});
  const address = connection.remoteAddress;
  const sandbox = address === undefined ? undefined : world.sandboxAt(address);
  if (!sandbox || sandbox.dnsConnections.size >= dnsConnectionLimit) return void connection.resetAndDestroy();
  const entry = { end: () => connection.destroy() };
  sandbox.dnsConnections.add(entry);
  connection.on("close", () => sandbox.dnsConnections.delete(entry));
  connection.setTimeout(tcpIdleMs, () => connection.destroy());
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of connection as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 2) {
      const length = rest.readUInt16BE(0);
      if (length > tcpQueryLimitBytes) return void connection.destroy();
      if (rest.length < 2 + length) break;
      const waitMs = sandbox.dnsQuestions.spend(performance.now(), 1);
      if (waitMs > 0) await sleep(waitMs);
      if (connection.destroyed) return;
      const reply = await answerDns(rest.subarray(2, 2 + length), sourceFor(sandbox, world), false);
      rest = rest.subarray(2 + length);
      if (!reply) return void connection.destroy();
      const size = Buffer.alloc(2);
      size.writeUInt16BE(reply.length);
      if (!connection.write(Buffer.concat([size, reply]))) await drained(connection);
    }
  }
}

function drained(connection: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    connection.once("drain", resolve);
    connection.once("close", () => reject(new Error("closed")));
  });
}

/** RFC 7766 asks for some seconds. */
const tcpIdleMs = 10_000;
/** A query is a name and an option; only replies are long. */
const tcpQueryLimitBytes = 4_096;

function sourceFor(sandbox: GatewaySandbox, world: World): DnsSource {
  const resolver = world.resolver();
  return {
    decide: (host) => decide({ host, protocol: "dns", named: resolver.isNamed(host) }),
    addressOf: (host) => sandbox.names.addressOf(host),
    lookup: (host) => {
      const ask = () => resolver.lookup(host);
      return resolver.isKnown(host) ? ask() : sandbox.limited(ask);
    },
    records: (host, type) => sandbox.limited(() => resolver.records(host, type)),
  };
}
