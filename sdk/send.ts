import { SandboxError } from "../protocol/errors.ts";

/**
 * Sends a request on and gives the answer. `fetch`, or better: the answer as it was sent, and one that agrees to become a
 * WebSocket as a Response of status 101, which stands for the open connection. An app that returns it gives the connection to
 * whoever asked the app.
 */
export type Send = (url: string, init: RequestInit) => Promise<Response>;

/** On globalThis: the Send of a host of apps, in a runtime whose own fetch opens no WebSockets. */
export const sendKey = Symbol.for("@atoll/sandbox.send");

/** What this runtime has for requests that are passed on. */
export function senderFor(request: Request, refusal: { message: string; suggestion: string }): Send {
  const { [sendKey]: ofHost } = globalThis as { [sendKey]?: Send };
  if (ofHost) return ofHost;
  // A runtime that has pairs of WebSockets opens others by fetch.
  if (!asksForWebSocket(request) || "WebSocketPair" in globalThis) return fetch;
  throw new SandboxError("NOT_SUPPORTED", refusal.message, { suggestion: refusal.suggestion });
}

export function asksForWebSocket(request: Request): boolean {
  return request.headers.get("upgrade")?.toLowerCase() === "websocket";
}
