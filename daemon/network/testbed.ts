import { decode, encode, type Answer } from "dns-packet";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { inNamespace } from "../linux/namespace.ts";
import type { Inside } from "./insider.ts";
import { openNetwork, type Network, type NetworkOptions, type Slot } from "./network.ts";

/** For tests: a network of its own, with a resolver that says what the test wants. */
export type Testbed = AsyncDisposable & {
  options: NetworkOptions;
  network: Network;
  /** What the resolver answers: name (and type, when not A) to answers. */
  zone: Record<string, ZoneEntry>;
  /** The names it was asked for. */
  asked: string[];
  /** Opens the network again, as the next daemon does. */
  reopen(): Promise<Network>;
  logged: string[];
};

export type ZoneEntry = string[] | Answer[] | "SERVFAIL" | "SILENT";

/** With `real`, names are those of the host's own resolver. */
export async function openTestbed(hosts: Record<string, string> = {}, real = false): Promise<Testbed> {
  const tag = randomBytes(3).toString("hex");
  const runDir = `/run/atoll/${tag}`;
  await using undo = new AsyncDisposableStack();
  mkdirSync("/run/atoll", { recursive: true, mode: 0o711 });
  mkdirSync(runDir, { mode: 0o711 });
  undo.defer(() => rmSync(runDir, { recursive: true }));
  // Not /tmp: it may be mounted noexec.
  const directory = mkdtempSync("/var/tmp/atoll-network-");
  chmodSync(directory, 0o711);
  undo.defer(() => rmSync(directory, { recursive: true }));

  const zone: Testbed["zone"] = {};
  const asked: string[] = [];
  const resolver = undo.use(await openResolver(zone, asked));
  const logged: string[] = [];
  const options: NetworkOptions = {
    ...{ tag, runDir, hosts, dataDir: join(directory, "data"), storeDir: join(directory, "store") },
    ...(!real && { resolvers: [`127.0.0.1:${resolver.port}`] }),
    log: (level, fields, message) => logged.push(`${level} ${message} ${JSON.stringify(fields)}`),
  };
  let network = await openNetwork(options);
  undo.defer(() => network.end());
  await network.recover([]);
  const owned = undo.move();
  return {
    options,
    zone,
    asked,
    logged,
    get network() {
      return network;
    },
    reopen: async () => {
      await network[Symbol.asyncDispose]();
      return (network = await openNetwork(options));
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

async function openResolver(zone: Testbed["zone"], asked: string[]): Promise<AsyncDisposable & { port: number }> {
  const socket = createSocket("udp4");
  socket.on("message", (message, { address, port }) => {
    const { id, questions } = decode(message);
    const { name, type } = questions![0]!;
    asked.push(`${name} ${type}`);
    const entry = zone[type === "A" ? name : `${name} ${type}`];
    const exists = Object.keys(zone).some((key) => key.split(" ")[0] === name);
    if (entry === "SILENT") return;
    const rcode = entry === "SERVFAIL" ? 2 : exists ? 0 : 3;
    const answers = Array.isArray(entry) ? entry.map((item) => toAnswer(name, item)) : [];
    socket.send(
      encode({ type: "response", id: id!, flags: 0x180 | rcode, questions: questions!, answers }),
      port,
      address,
    );
  });
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  return {
    port: socket.address().port,
    [Symbol.asyncDispose]: async () => void (await new Promise<void>((resolve) => socket.close(() => resolve()))),
  };
}

function toAnswer(name: string, item: string | Answer): Answer {
  if (typeof item !== "string") return item;
  return { name, type: item.includes(":") ? "AAAA" : "A", class: "IN", ttl: 0, data: item };
}

/** A program inside a slot, with all of root's rights: worse than any sandbox. */
export type Insider = Disposable & {
  /** Runs a function in there (its source is sent: it sees `inside` and `input` only) and gives its JSON result. */
  run<I, O>(work: (inside: Inside, input: I) => O | Promise<O>, input: I): Promise<O>;
};

export async function openInsider(slot: Slot): Promise<Insider> {
  const script = fileURLToPath(new URL("insider.ts", import.meta.url));
  const child = inNamespace("net", slot.netnsPath, () =>
    spawn(process.execPath, [script], { stdio: ["pipe", "pipe", "inherit"], env: { NODE_NO_WARNINGS: "1" } }),
  );
  await once(child, "spawn");
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let last: Promise<unknown> = Promise.resolve();
  return {
    run: <I, O>(work: (inside: Inside, input: I) => O | Promise<O>, input: I) => {
      const next = last.then(async () => {
        child.stdin.write(`${JSON.stringify({ source: work.toString(), input })}\n`);
        const { value } = (await answers.next()) as { value?: string };
        assert.ok(value !== undefined, "the insider has ended");
        const answer = JSON.parse(value) as { result: O; error?: string };
        if (answer.error !== undefined) throw new Error(`inside: ${answer.error}`);
        return answer.result;
      });
      last = next.catch(() => {});
      return next;
    },
    [Symbol.dispose]: () => void child.kill("SIGKILL"),
  };
}

/** A TCP server on the host that counts who comes, and does with them what the test wants. */
export async function listenOnHost(
  host: string,
  serve: Parameters<typeof createServer>[1] = (socket) => socket.destroy(),
): Promise<AsyncDisposable & { port: number; hits(): number; server: Server }> {
  let hits = 0;
  const sockets = new Set<AsyncDisposable | { destroy(): void }>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    hits += 1;
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    serve!(socket);
  });
  server.listen(0, host);
  await once(server, "listening");
  return {
    server,
    port: (server.address() as AddressInfo).port,
    hits: () => hits,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) if ("destroy" in socket) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
