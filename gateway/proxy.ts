import { connect, createServer, type LookupFunction, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { createInspector, type Inspector, type Step } from "./inspect.ts";
import { admits } from "./limit.ts";
import { decide } from "./policy.ts";
import { forbiddenRange } from "./range.ts";
import { abort, refuse } from "./refuse.ts";
import type { Resolver } from "./resolver.ts";
import type { Connection, GatewaySandbox, Log } from "./sandbox.ts";

export type ProxyWorld = {
  sandboxAt(address: string): GatewaySandbox | undefined;
  sandboxCount(): number;
  resolver(): Resolver;
  log: Log;
  /** Connections that the descriptors of this process allow. */
  capacity: number;
};

/**
 * Takes the sandboxes' TCP connections from the hub's transparent socket and carries each to the host whose name its
 * destination address is. The socket's own end is the original destination.
 */
export function serveProxy(fd: number, world: ProxyWorld): void {
  const open = { count: 0 };
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    client.on("error", () => {});
    const { remoteAddress, localAddress, localPort } = client;
    // Nothing is known of a client that has reset already, not even who it was.
    const sandbox = remoteAddress === undefined ? undefined : world.sandboxAt(remoteAddress);
    const host = localAddress === undefined ? undefined : sandbox?.names.nameOf(localAddress);
    if (!sandbox || host === undefined || localPort === undefined) return void client.resetAndDestroy();
    const load = { total: open.count, capacity: world.capacity, sandboxes: world.sandboxCount() };
    if (!admits({ ...load, own: sandbox.connections.size })) {
      if (sandbox.mayLog()) world.log("warn", "too many connections", { run: sandbox.attachment.run });
      return void client.resetAndDestroy();
    }
    open.count += 1;
    carry(client, { host, port: localPort, sandbox, world }, () => (open.count -= 1));
  });
  server.on("error", (error) => world.log("error", "proxy listener", { error: error.message }));
  server.listen({ fd, backlog: 4096 });
}

type Way = { host: string; port: number; sandbox: GatewaySandbox; world: ProxyWorld };

/** `over` is called once, when both ends are closed: an end that lingers still costs a descriptor. */
function carry(client: Socket, { host, port, sandbox, world }: Way, over: () => void): void {
  const resolver = world.resolver();
  const { run } = sandbox.attachment;
  const inspector = createInspector(host, resolver.isNamed(host));
  const decision = decide({ host, port, protocol: "tcp", named: resolver.isNamed(host) });
  const server = decision.allow ? dial(host, port, publicLookup(resolver, sandbox)) : undefined;
  const entry: Connection = {
    ...{ run, host, port, openedAtMs: Date.now(), bytesUp: 0, bytesDown: 0, state: "dialling" },
    end: () => {
      abort(client);
      if (server) abort(server);
    },
  };
  sandbox.connections.add(entry);
  const closed = () => {
    if (!client.closed || (server && !server.closed)) return;
    if (sandbox.connections.delete(entry)) over();
  };
  client.on("close", closed);
  server?.on("close", closed);

  const deny = (why: string) => {
    if (entry.state === "refused") return;
    // Words fit only where nothing of an answer has come yet.
    const answered = entry.bytesDown > 0;
    entry.state = "refused";
    if (server) abort(server);
    if (sandbox.mayLog()) world.log("info", "refused", { run, host, port, why });
    if (answered) abort(client);
    else refuseWhenKnown(client, sandbox, inspector, `Cannot reach ${host}:${port}: ${why}`);
  };
  if (!decision.allow || !server) return deny(decision.allow ? "" : decision.rule);

  server.on("connect", () => {
    if (entry.state === "dialling") entry.state = "open";
  });
  server.on("error", (error) => {
    if (error instanceof Forbidden) return deny(error.message);
    if (entry.state === "refused") return;
    if (entry.state === "dialling" && sandbox.mayLog())
      world.log("info", "unreachable", { run, host, port, why: error.message });
    abort(client);
  });
  server.on("close", () => {
    if (!client.writableEnded && entry.state !== "refused") abort(client);
  });
  client.on("error", () => abort(server));
  client.on("close", () => {
    if (!server.writableEnded) abort(server);
  });
  pumpUp(client, server, { sandbox, inspector, entry, deny });
  pumpDown(server, client, entry);
}

function dial(host: string, port: number, lookup: LookupFunction): Socket {
  const server = connect({
    ...{ host, port, lookup, allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs },
    ...{ autoSelectFamily: true, autoSelectFamilyAttemptTimeout: attemptMs },
  });
  const limit = setTimeout(() => server.destroy(new Error("no answer")), dialMs);
  server.on("connect", () => clearTimeout(limit)).on("close", () => clearTimeout(limit));
  return server;
}

function pumpUp(client: Socket, server: Socket, { sandbox, inspector, entry, deny }: Inspection): void {
  let patience: NodeJS.Timeout | undefined;
  let turn: NodeJS.Timeout | undefined;
  const forward = (bytes: Buffer) => {
    entry.bytesUp += bytes.length;
    if (!server.write(bytes)) client.pause();
  };
  const takeChunk = (chunk: Buffer) => {
    clearTimeout(patience);
    clearTimeout(turn);
    if (inspector.done) return forward(chunk);
    const waitMs = owedMs(sandbox);
    if (waitMs > 0) return putBack(chunk, waitMs);
    const step = inspect(sandbox, inspector, chunk);
    if (step.refusal !== undefined) return deny(step.refusal);
    if (step.forward.length > 0) forward(step.forward);
    if (inspector.heldBytes > 0) patience = setTimeout(release, patienceMs);
  };
  const putBack = (chunk: Buffer, waitMs: number) => {
    client.pause();
    client.unshift(chunk);
    turn = setTimeout(() => client.resume(), waitMs);
  };
  const release = () => {
    const held = inspector.release();
    if (held.length > 0 && !server.destroyed) forward(held);
  };
  client.on("data", takeChunk);
  client.on("end", () => {
    clearTimeout(patience);
    if (entry.state === "refused") return;
    release();
    entry.state = "closing";
    server.end();
    server.setTimeout(halfClosedMs, () => abort(client));
  });
  client.on("close", () => {
    clearTimeout(patience);
    clearTimeout(turn);
  });
  server.on("drain", () => client.resume());
}

type Inspection = {
  sandbox: GatewaySandbox;
  inspector: Inspector;
  entry: Connection;
  deny: (why: string) => void;
};

/** Reads for a sandbox, at the sandbox's expense. */
function inspect(sandbox: GatewaySandbox, inspector: Inspector, chunk: Buffer): Step {
  const began = performance.now();
  const step = inspector.take(chunk);
  const now = performance.now();
  sandbox.reading.spend(now, now - began);
  return step;
}

/** How long the sandbox has to wait until something of it is read again. */
function owedMs(sandbox: GatewaySandbox): number {
  return sandbox.reading.spend(performance.now(), 0);
}

function pumpDown(server: Socket, client: Socket, entry: Connection): void {
  server.on("data", (chunk: Buffer) => {
    if (entry.state === "refused") return;
    entry.bytesDown += chunk.length;
    if (!client.write(chunk)) server.pause();
  });
  server.on("end", () => {
    if (entry.state === "refused") return;
    entry.state = "closing";
    client.end();
  });
  client.on("drain", () => server.resume());
}

/** Refuses a client in the protocol it speaks, waiting for what it says first; a silent one is reset. */
function refuseWhenKnown(client: Socket, sandbox: GatewaySandbox, inspector: Inspector, reason: string): void {
  if (inspector.protocol !== undefined) return refuse(client, inspector.protocol, reason);
  const timer = setTimeout(() => abort(client), patienceMs);
  client.removeAllListeners("data");
  client.removeAllListeners("drain");
  client.on("data", (chunk: Buffer) => {
    if (owedMs(sandbox) > 0) return abort(client);
    inspect(sandbox, inspector, chunk);
    if (inspector.protocol === undefined) return;
    clearTimeout(timer);
    refuse(client, inspector.protocol, reason);
  });
  client.on("end", () => abort(client));
  client.on("close", () => clearTimeout(timer));
  client.resume();
}

class Forbidden extends Error {}

/** Resolves for dialling: only addresses that may be reached come out, and exactly they are dialled. */
function publicLookup(resolver: Resolver, sandbox: GatewaySandbox): LookupFunction {
  return (host, _options, callback) => {
    const ask = () => resolver.lookup(host);
    const asked = (resolver.isKnown(host) ? ask() : sandbox.limited(ask)).then(
      (found) => {
        if (found.kind !== "addresses")
          return callback(new Error(found.kind === "failed" ? found.why : "it has no address"), []);
        const own = ownAddresses();
        const why = (address: string) => (resolver.isNamed(host) ? undefined : forbiddenRange(address, own));
        const allowed = found.addresses.filter((address) => why(address) === undefined);
        if (allowed.length === 0)
          return callback(new Forbidden(`its address ${found.addresses[0]} is ${why(found.addresses[0]!)}`), []);
        callback(
          null,
          allowed.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
        );
      },
      () => callback(new Error("too many lookups"), []),
    );
    // Without descriptors the machine's own addresses cannot be known, and then nothing is dialled.
    asked.catch((error: Error) => callback(error, []));
  };
}

let known: { addresses: ReadonlySet<string>; until: number } | undefined;

/** Every address of this machine, as of some seconds ago; the host's output chain knows them as of now. */
function ownAddresses(): ReadonlySet<string> {
  if (known && known.until > performance.now()) return known.addresses;
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  known = { addresses: new Set(all.map(({ address }) => address)), until: performance.now() + 5_000 };
  return known.addresses;
}

/** A dial that takes longer has nobody waiting for it any more: clients give up between 10 and 60 s. */
const dialMs = 30_000;
/** One address of several may be dead; a slow line still answers within this. */
const attemptMs = 3_000;
/** A client that has closed its side may be gone altogether, which nobody tells; a server silent for so long is not working. */
const halfClosedMs = 30 * 60_000;
/** Below the idle limits of usual routers and load balancers, and a dead server is noticed within minutes. */
const keepAliveMs = 60_000;
/** How long half a line is held before it goes on: longer than any pause inside one message. */
const patienceMs = 300;
