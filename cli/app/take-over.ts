import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocket, WebSocketServer } from "ws";
import { join } from "./join.ts";
import { give, type Switching, Upstream } from "./switching.ts";
import { hangUp, type PairedSocket, waitingBytes } from "./web-socket-pair.ts";

/** As Workers have it. */
const messageLimitBytes = 32 * 1024 * 1024;

/** What an app has sent and a visitor does not take, or the reverse; then the visitor is cut off. */
const waitingLimitBytes = 64 * 1024 * 1024;

/** Visitors' machines vanish without a word; so often it is asked whether they are there. */
const keepAliveMs = 30_000;

/** Gives a visitor's connection what the app has answered. Resolves when it is closed. `ending`: the app goes. */
export async function takeOver(
  { webSocket, headers }: Switching,
  incoming: IncomingMessage,
  socket: Duplex,
  ending: AbortSignal,
): Promise<void> {
  if ("setKeepAlive" in socket) (socket as Socket).setKeepAlive(true, keepAliveMs);
  if (webSocket instanceof Upstream) {
    const upstream = webSocket.take();
    socket.write(headOf(webSocket.headers), "latin1");
    return join(socket, upstream, ending);
  }
  give(webSocket);
  const visitor = await shakeHands(incoming, socket, headers);
  if (!visitor) return hangUp(webSocket, { code: 1006, wasClean: false });
  return connect(visitor, webSocket, ending);
}

type Socket = Duplex & { setKeepAlive(on: boolean, ms: number): void };

/** What the server said, but what is said by us or is none of the visitor's business. */
function headOf(raw: readonly string[]): string {
  const lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"];
  for (let at = 0; at < raw.length; at += 2) {
    if (!/^(connection|upgrade|atoll[-_].*)$/i.test(raw[at] ?? "")) lines.push(`${raw[at]}: ${raw[at + 1]}`);
  }
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** Undefined: the visitor has gone meanwhile. */
function shakeHands(incoming: IncomingMessage, socket: Duplex, headers: Headers): Promise<WebSocket | undefined> {
  const protocol = headers.get("sec-websocket-protocol") ?? false;
  const server = new WebSocketServer({
    ...{ noServer: true, clientTracking: false, perMessageDeflate: false, maxPayload: messageLimitBytes },
    handleProtocols: () => protocol,
  });
  server.on("headers", (lines) => {
    for (const [name, value] of headers) {
      if (!/^(connection|upgrade|sec-websocket-.*|content-length)$/.test(name)) lines.push(`${name}: ${value}`);
    }
  });
  return new Promise((resolve) => {
    socket.once("close", () => resolve(undefined));
    server.handleUpgrade(incoming, socket, Buffer.alloc(0), resolve);
  });
}

/** Makes the visitor the owner of this end of the pair. */
function connect(visitor: WebSocket, end: PairedSocket, ending: AbortSignal): Promise<void> {
  const goAway = () => visitor.close(1001, "The app has ended");
  ending.addEventListener("abort", goAway);
  visitor.binaryType = "arraybuffer";
  let failure: Error | undefined;
  visitor.on("error", (error) => (failure = error)); // "close" follows
  visitor.on("message", (data: ArrayBuffer, isBinary: boolean) => {
    if (end.readyState === WebSocket.OPEN) end.send(isBinary ? data : Buffer.from(data).toString());
    if (waitingBytes(end) > waitingLimitBytes) visitor.terminate();
  });
  end.addEventListener("message", ({ data }: MessageEventInit<string | ArrayBuffer>) => {
    visitor.send(data ?? "");
    if (visitor.bufferedAmount > waitingLimitBytes) visitor.terminate();
  });
  end.addEventListener("close", ({ code, reason }: CloseEventInit) => {
    if (code === 1005) visitor.close();
    else visitor.close(code, reason);
  });
  end.accept();
  return new Promise((resolve) => {
    visitor.on("close", (code, reason) => {
      ending.removeEventListener("abort", goAway);
      hangUp(end, { code, reason: reason.toString(), wasClean: code !== 1006 }, failure);
      resolve();
    });
  });
}
