import { SandboxError } from "../protocol/errors.ts";
import { previewLabelOf } from "../protocol/port.ts";
import { sentOnce } from "./call.ts";
import { Connection, defaultConnection } from "./connection.ts";
import type { Scope } from "./scope.ts";
import { asksForWebSocket, senderFor } from "./send.ts";
import type { Transport } from "./transport.ts";

export type FetchCall = [input: Request | URL | string, initOrPort: RequestInit | number | undefined, port?: number];

/** Contract: SandboxMethods.containerFetch. */
export async function containerFetch(scope: Scope, ...[input, second, third]: FetchCall): Promise<Response> {
  const port = typeof second === "number" ? second : third;
  if (port === undefined) throw new SandboxError("INVALID_PORT", "Cannot fetch from a sandbox: no port was given");
  const request = requestOf(input, typeof second === "object" ? second : undefined, port);
  return send(scope, request, port);
}

/** Contract: SandboxMethods.wsConnect. */
export async function wsConnect(scope: Scope, request: Request, port: number): Promise<Response> {
  if (!asksForWebSocket(request)) {
    return new Response("This address wants a WebSocket\n", { status: 426, headers: { upgrade: "websocket" } });
  }
  return send(scope, request, port);
}

async function send(scope: Scope, request: Request, port: number): Promise<Response> {
  requirePort(port); // part of a path, which an app may have from its visitor
  await scope.ready();
  const { pathname, search } = new URL(request.url);
  const path = `/v1/sandboxes/${scope.sandbox}/ports/${port}/http${pathname}${search}`;
  const response = await pass(scope.transport, path, request);
  // the daemon's own answer: a server in a sandbox cannot send this header
  if (response.headers.has("atoll-error")) throw SandboxError.from(await response.json());
  return response;
}

function requirePort(port: unknown): void {
  if (typeof port === "number" && Number.isInteger(port) && port >= 1 && port <= 65_535) return;
  throw new SandboxError(
    "INVALID_PORT",
    `Cannot connect to port ${JSON.stringify(port)}: a port is a number from 1 to 65535`,
  );
}

/**
 * Passes a visitor's request for a preview on to the daemon, from an app that previews' host names lead to; null when its host
 * is no preview's. The daemon checks the URL's token, wakes the sandbox and answers, also with a page that says what is wrong.
 * `env`: where the app's binding of a sandbox class is looked for, to know the daemon; default: the default connection.
 *
 * Throws NOT_SUPPORTED for a WebSocket where the runtime's fetch knows none, SANDBOX_UNAVAILABLE when there is no daemon.
 */
export async function proxyToSandbox(request: Request, env?: unknown): Promise<Response | null> {
  const { hostname, pathname, search } = new URL(request.url);
  const label = previewLabelOf(hostname.toLowerCase());
  if (label === undefined) return null;
  return pass(connectionIn(env).transport, `/v1/previews/${label}${pathname}${search}`, request);
}

function connectionIn(env: unknown): Connection {
  for (const value of [env, ...(Object.values(env ?? {}) as unknown[])]) {
    if (value instanceof Connection) return value;
    if (typeof value !== "object" || value === null || !("connection" in value)) continue;
    if (value.connection instanceof Connection) return value.connection;
  }
  return defaultConnection();
}

async function pass(transport: Transport, path: string, request: Request): Promise<Response> {
  const upgrades = asksForWebSocket(request);
  const sender = senderFor(request, noWebSockets);
  const init = {
    method: request.method,
    headers: headersFor(request, upgrades),
    body: request.body,
    duplex: "half",
    redirect: "manual",
    signal: request.signal,
    ...(request.body && sender === fetch && sentOnce()),
  };
  if (init.redirect === "error") init.headers.set("atoll-redirects", "as-200");
  const response = await transport.forward(path, init as RequestInit, sender);
  return upgrades ? response : asItWasSent(response);
}

const noWebSockets = {
  message: "Cannot pass a WebSocket on: this runtime's fetch knows none",
  suggestion: "Run the app with atoll run, or let the visitor use the preview's own URL, which exposePort gives",
};

/** Of the connection, or made anew by fetch. */
const notPassed = [
  ...["connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer"],
  ...["transfer-encoding", "upgrade"],
];

function headersFor(request: Request, upgrades: boolean): Headers {
  const headers = new Headers(request.headers);
  const { host, protocol } = new URL(request.url);
  const authorization = headers.get("authorization");
  for (const name of [...headers.keys()]) if (name.startsWith("atoll-")) headers.delete(name);
  for (const name of [...notPassed, "authorization"]) headers.delete(name);
  if (authorization !== null) headers.set("atoll-forwarded-authorization", authorization);
  headers.set("atoll-forwarded-host", host);
  headers.set("atoll-forwarded-proto", protocol.slice(0, -1));
  headers.set("accept-encoding", "identity"); // fetch would unpack what comes packed
  if (upgrades) headers.set("upgrade", "websocket");
  return headers;
}

/**
 * What a server packs although nobody asked for it has been unpacked by fetch: then these headers are wrong. And where fetch
 * takes no redirect, its status comes in a header.
 */
function asItWasSent(response: Response): Response {
  const headers = new Headers(response.headers);
  const redirect = headers.get("atoll-status");
  headers.delete("atoll-status");
  if (headers.has("content-encoding")) {
    headers.delete("content-encoding");
    headers.delete("content-length");
  }
  const { status, statusText } = redirect === null ? response : { status: Number(redirect), statusText: "" };
  const hasBody = ![204, 205, 304].includes(status);
  return new Response(hasBody ? response.body : null, { status, statusText, headers });
}

function requestOf(input: Request | URL | string, init: RequestInit | undefined, port: number): Request {
  if (input instanceof Request) return init ? new Request(input, init) : input;
  return new Request(new URL(input, `http://localhost:${port}`), init);
}
