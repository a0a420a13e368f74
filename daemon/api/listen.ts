import { createServer, IncomingMessage, type RequestListener, type Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { chmod, rm } from "node:fs/promises";

export type Listening = AsyncDisposable & { port: number };

/** What is served: requests, and those that want another protocol and may have it, on their bare sockets. */
export type Serving = {
  request: RequestListener;
  /** Whether a request with an Upgrade header goes to `upgrade`; another is answered like any request. */
  wantsUpgrade(request: IncomingMessage): boolean;
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
};

/** A request head comes at once; what follows may take as long as it likes (uploads, streams). */
const headersLimitMs = 30_000;

/**
 * Serves on `host:port`, and for a loopback address on the other family's loopback too, because `localhost` may mean
 * either. Port 0 takes a free one. Disposing ends every connection.
 */
export async function listenTcp(serving: Serving, host: string, port: number): Promise<Listening> {
  const first = await listen(makeServer(serving), { host, port });
  const bound = (first.address() as { port: number }).port;
  const other = { "127.0.0.1": "::1", "::1": "127.0.0.1", localhost: "::1" }[host];
  const servers = [first];
  if (other !== undefined) {
    try {
      servers.push(await listen(makeServer(serving), { host: other, port: bound }));
    } catch (error) {
      // a host without IPv6 has no second loopback
      if (!["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes((error as NodeJS.ErrnoException).code ?? "")) {
        first.close();
        throw error;
      }
    }
  }
  return { port: bound, [Symbol.asyncDispose]: async () => void (await Promise.all(servers.map(close))) };
}

/** Serves on a unix socket that only root can open. */
export async function listenUnix(request: RequestListener, path: string): Promise<AsyncDisposable> {
  await rm(path, { force: true }); // of a daemon that was killed; the data directory's lock says that none lives
  const serving = {
    request,
    wantsUpgrade: () => false,
    upgrade: (_: unknown, socket: Duplex) => void socket.destroy(),
  };
  const server = await listen(makeServer(serving), { path });
  await chmod(path, 0o600);
  return { [Symbol.asyncDispose]: () => close(server) };
}

function makeServer(serving: Serving): Server {
  const server = createServer(
    {
      headersTimeout: headersLimitMs,
      requestTimeout: 0,
      keepAliveTimeout: 65_000,
      noDelay: true,
      optimizeEmptyRequests: true,
      shouldUpgradeCallback: (request) => serving.wantsUpgrade(request),
      IncomingMessage: GatheringRequest,
      ServerResponse: JoiningResponse,
    },
    serving.request,
  );
  server.on("upgrade", (request, socket, head) => {
    if (isAnswering(request, socket)) socket.destroy();
    else serving.upgrade(request, socket, head);
  });
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    closeGently(socket);
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  connections.set(server, sockets);
  return server;
}

/**
 * Whether the answer to an earlier request is still on its way. Who sends a request for another protocol right behind another
 * may not have it: two would write at once.
 */
function isAnswering(request: IncomingMessage, socket: Duplex): boolean {
  const probe = new ServerResponse(request);
  try {
    probe.assignSocket(socket as Socket);
  } catch {
    return true;
  }
  probe.detachSocket(socket as Socket);
  return false;
}

/** What is open, also what a server has given away to another protocol. */
const connections = new WeakMap<Server, ReadonlySet<Socket>>();

/** How long a caller may take to notice that nobody wants the rest of its body. */
const lingerMs = 2_000;

/**
 * A refusal may leave before the body has come whole, and closing then would be a reset, which takes the refusal with it on its
 * way. So the server closes only its half, and reads on for a while without looking (RFC 9112, 9.6).
 */
function closeGently(socket: Socket): void {
  socket.destroySoon = () => {
    if (socket.writable) socket.end();
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    const over = () => socket.destroy();
    socket.once("end", over).once("close", () => clearTimeout(timer));
    if (socket.readableEnded) socket.once("finish", over);
  };
}

/** Smaller chunks of a body are gathered. */
const smallBytes = 4 * 1024;

/** One read holds ten thousand chunks of a byte; who sends more than so many waits until others had their turn. */
const chunksPerTurn = 64;

/**
 * A request whose small chunks are one piece when they come at once. Node bounds what waits for a reader by its bytes alone, and
 * a chunk of one byte costs 400: a body of nothing else would take 30 MB where 64 KiB are meant.
 */
class GatheringRequest extends IncomingMessage {
  #small: Buffer[] | undefined;

  override push(chunk: Buffer | null): boolean {
    if (chunk === null || chunk.length >= smallBytes) {
      this.#flush();
      return super.push(chunk);
    }
    if (!this.#small) {
      this.#small = [];
      // when what came at once has been read: not earlier, as between two chunks Node does all else that is due
      setImmediate(() => this.#flush());
    }
    return this.#small.push(chunk) < chunksPerTurn;
  }

  #flush(): void {
    const small = this.#small;
    this.#small = undefined;
    if (small) super.push(small.length === 1 ? small[0] : Buffer.concat(small));
  }
}

/** Headers that are to leave at once wait for the end of this turn: a first event that is there leaves with them. */
class JoiningResponse extends ServerResponse {
  override flushHeaders(): void {
    setImmediate(() => this.writableEnded || super.flushHeaders());
  }
}

function listen(server: Server, where: { host: string; port: number } | { path: string }): Promise<Server> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject);
      resolve(server);
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    for (const socket of connections.get(server) ?? []) socket.destroy();
  });
}
