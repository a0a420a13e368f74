import type { Socket } from "node:net";
import type { Protocol } from "./inspect.ts";

/** Ends a connection with the reason, in words where its protocol has any: 403 for HTTP, alert 49 for TLS, else a reset. */
export function refuse(client: Socket, protocol: Protocol | undefined, reason: string): void {
  if (client.destroyed) return;
  if (protocol === "http") client.end(forbidden(reason));
  else if (protocol === "tls") client.end(accessDenied);
  else return abort(client);
  // What the client still sends is read away: closing over unread bytes would be a reset, which takes the answer back.
  client.removeAllListeners("data");
  client.resume();
  const timer = setTimeout(() => client.destroy(), lingerMs);
  client.on("close", () => clearTimeout(timer));
}

/** Resets a connection, or just closes it when its end has been sent already: libuv refuses a reset then. */
export function abort(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

/** Time for the answer to arrive and the client to hang up. */
const lingerMs = 2_000;

function forbidden(reason: string): string {
  const body = `${reason}\n`;
  return [
    "HTTP/1.1 403 Forbidden",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Connection: close",
    "",
    body,
  ].join("\r\n");
}

/** RFC 8446 section 6: a fatal alert, access_denied. */
const accessDenied = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31]);
