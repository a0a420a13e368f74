import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

/** One request as it came, with its whole body. */
export type Seen = { method: string; path: string; headers: IncomingMessage["headers"]; body: string };

/** What the server does with one request. */
export type Step = (response: ServerResponse, seen: Seen, request: IncomingMessage) => void | Promise<void>;

/**
 * A server for what a real daemon never does on purpose: cut streams, be silent, answer as a proxy. It answers the first
 * request by the first step and so on, the last step for all that follow. `bodies: false` leaves reading them to the steps.
 */
export async function scriptedServer(steps: Step[], options: { port?: number; bodies?: boolean } = {}) {
  const seen: Seen[] = [];
  const sockets = new Set<Socket>();
  const server = createServer(async (request, response) => {
    const step = steps[Math.min(seen.length, steps.length - 1)];
    const entry = { method: request.method ?? "", path: request.url ?? "", headers: request.headers, body: "" };
    seen.push(entry);
    if (options.bodies !== false) for await (const chunk of request) entry.body += String(chunk);
    await step?.(response, entry, request);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    seen,
    connections: () => sockets.size,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function json(value: unknown, status = 200): Step {
  return (response) =>
    void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

/** Text of an event stream, then its end; `then: "cut"` breaks the connection instead, `then: "silence"` says no more. */
export function events(text: string, then: "end" | "cut" | "silence" = "end"): Step {
  return (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    if (then === "end") response.end(text);
    else
      response.write(text === "" ? ":\n\n" : text, () => {
        if (then === "cut") response.socket?.destroy();
      });
  };
}

export function event(id: string | undefined, value: unknown): string {
  return `${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(value)}\n\n`;
}
