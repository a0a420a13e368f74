import { createServer, type RequestListener, type Server, type ServerResponse } from "node:http";
import { chmod, rm } from "node:fs/promises";

export type Listening = AsyncDisposable & { port: number };

/** A request head comes at once; what follows may take as long as it likes (uploads, streams). */
const headersLimitMs = 30_000;

/**
 * Serves on `host:port`, and for a loopback address on the other family's loopback too, because `localhost` may mean
 * either. Port 0 takes a free one. Disposing ends every connection.
 */
export async function listenTcp(listener: RequestListener, host: string, port: number): Promise<Listening> {
  const first = await listen(makeServer(listener), { host, port });
  const bound = (first.address() as { port: number }).port;
  const other = { "127.0.0.1": "::1", "::1": "127.0.0.1", localhost: "::1" }[host];
  const servers = [first];
  if (other !== undefined) {
    try {
      servers.push(await listen(makeServer(listener), { host: other, port: bound }));
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
export async function listenUnix(listener: RequestListener, path: string): Promise<AsyncDisposable> {
  await rm(path, { force: true }); // of a daemon that was killed; the data directory's lock says that none lives
  const server = await listen(makeServer(listener), { path });
  await chmod(path, 0o600);
  return { [Symbol.asyncDispose]: () => close(server) };
}

function makeServer(listener: RequestListener): Server {
  const server = createServer(
    { headersTimeout: headersLimitMs, requestTimeout: 0, keepAliveTimeout: 65_000, noDelay: true },
    (request, response) => {
      joinHeaders(response);
      return listener(request, response);
    },
  );
  return server;
}

/** Headers that are to leave at once wait for the end of this turn: a first event that is there leaves with them. */
function joinHeaders(response: ServerResponse): void {
  const flush = response.flushHeaders.bind(response);
  response.flushHeaders = () => void setImmediate(() => response.writableEnded || flush());
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
    server.closeAllConnections();
  });
}
