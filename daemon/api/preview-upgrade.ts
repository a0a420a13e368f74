import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { nonsense } from "./answer-reader.ts";
import { toVisitor, valueOf } from "./preview-headers.ts";
import { type Passage, relay } from "./preview-relay.ts";
import { StreamUse } from "./preview-use.ts";

/** Visitors' machines vanish without a word; so often it is asked whether they are there. */
const keepAliveMs = 30_000;

/**
 * Passes a request on that wants another protocol (WebSockets), and when the server agrees, the bytes both ways, each half
 * closed as it ends. Another answer is passed back as one. Throws while nothing has been answered.
 */
export async function relayUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  response: ServerResponse,
  passage: Passage,
): Promise<void> {
  const wanted = request.headers.upgrade ?? "";
  const agreed = await relay(request, response, passage, wanted);
  if (agreed === undefined) return;
  const { headers, inner } = agreed;
  inner.on("error", () => {}); // told by its close
  const raw = toVisitor(headers, 101, passage.shared);
  const lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"];
  lines.push(`Upgrade: ${valueOf(headers, "upgrade") ?? wanted}`);
  for (let at = 0; at < raw.length; at += 2) lines.push(`${raw[at]}: ${raw[at + 1]}`);
  if (lines.some((line) => /[\r\n\0]/.test(line))) {
    inner.destroy();
    throw nonsense("its headers have line breaks");
  }
  response.detachSocket(socket as never);
  socket.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
  await join(socket, inner, passage);
}

/** Bytes both ways, each at the pace of its reader. Resolves when both connections are closed. */
function join(visitor: Duplex, inner: Duplex, { run }: Passage): Promise<void> {
  if ("setKeepAlive" in visitor)
    (visitor as { setKeepAlive(on: boolean, ms: number): void }).setKeepAlive(true, keepAliveMs);
  let open = 2;
  return new Promise((resolve) => {
    for (const [from, to] of [
      [visitor, inner],
      [inner, visitor],
    ] as const) {
      const use = new StreamUse(run.activity);
      from.on("data", (chunk: Buffer) => use.flow(chunk.length));
      from.on("error", () => to.destroy());
      from.on("close", () => {
        if (!from.readableEnded || !from.writableFinished) to.destroy();
        if (--open === 0) resolve();
      });
      from.pipe(to);
    }
    // it may have closed before anybody listened
    if (visitor.destroyed) inner.destroy();
    if (inner.destroyed) visitor.destroy();
  });
}
