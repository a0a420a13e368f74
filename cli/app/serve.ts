import { createServer, type IncomingMessage, type Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { ExecutionContext } from "../../sdk/app-types.ts";
import { answer } from "./answer.ts";
import { type Arrived, RefusedRequest, requestOf } from "./request.ts";
import { drop, isSwitching } from "./switching.ts";
import { takeOver } from "./take-over.ts";
import { tellTrouble } from "./trouble.ts";
import { Work } from "./work.ts";

export type Serving = {
  /** The app's answer. What it throws is told, and is a 500. */
  fetch(request: Request, ctx: ExecutionContext): unknown;
  /** Counts requests, and what they wait for. */
  work: Work;
  /** Aborts when the app ends: WebSockets are closed. */
  ending: AbortSignal;
};

/** A request head comes at once; what follows may take as long as it likes (uploads, streams). */
const headersLimitMs = 30_000;

/** A server that answers by the app. Nobody listens yet. */
export function makeServer(serving: Serving): Server {
  const server = createServer(
    {
      ...{ headersTimeout: headersLimitMs, requestTimeout: 0, keepAliveTimeout: 65_000, noDelay: true },
      shouldUpgradeCallback: wantsWebSocket,
    },
    (incoming, outgoing) => serving.work.add(serve(serving, incoming, outgoing)),
  );
  server.on("upgrade", (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    serving.work.add(serveUpgrade(serving, incoming, socket, head));
  });
  return server;
}

/** Other protocols are an offer, which a server may always overlook. */
function wantsWebSocket({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && headers.upgrade?.toLowerCase() === "websocket";
}

async function serve(serving: Serving, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const gone = new AbortController();
  outgoing.on("close", () => outgoing.writableFinished || gone.abort(goneReason()));
  const exchange = new Exchange(serving, incoming, gone.signal);
  await exchange.answerTo(outgoing, await exchange.response());
}

async function serveUpgrade(serving: Serving, incoming: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  const outgoing = new ServerResponse(incoming);
  outgoing.shouldKeepAlive = false;
  try {
    outgoing.assignSocket(socket as Socket);
  } catch {
    return void socket.destroy(); // an earlier answer is still on its way: two would write at once
  }
  // at once: a stream that has ended meanwhile takes nothing back
  if (head.length > 0) socket.unshift(head);
  const gone = new AbortController();
  const onClose = () => gone.abort(goneReason());
  socket.on("close", onClose);
  socket.on("error", () => socket.destroy());
  const exchange = new Exchange(serving, incoming, gone.signal);
  const refused = refusalOf(incoming);
  const response = refused ?? (await exchange.response());
  if (socket.destroyed) return void (isSwitching(response) && drop(response));
  if (isSwitching(response)) {
    outgoing.detachSocket(socket as Socket);
    socket.off("close", onClose);
    // It is no work that the end waits for: it is closed then.
    takeOver(response, incoming, socket, serving.ending).catch((error: unknown) => {
      socket.destroy();
      tellTrouble(exchange.name, error);
    });
    return;
  }
  outgoing.once("finish", () => linger(socket));
  await exchange.answerTo(outgoing, response);
}

/** How long a client may take to notice that nobody wants what it sends. */
const lingerMs = 2_000;

/** Closing at once would be a reset while it sends, which takes the answer with it; and unread bytes keep a socket open. */
function linger(socket: Duplex): void {
  socket.end();
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), lingerMs);
  socket.once("close", () => clearTimeout(timer));
}

/** RFC 6455, 4.2: what every WebSocket's request has. */
function refusalOf({ headers }: IncomingMessage): Response | undefined {
  const version = headers["sec-websocket-version"];
  if (version !== "13") {
    return page(426, "WebSockets are served in version 13", { "sec-websocket-version": "13", upgrade: "websocket" });
  }
  if (/^[+/0-9a-z]{22}==$/i.test(headers["sec-websocket-key"] ?? "")) return undefined;
  return page(400, "The request is malformed: it has no Sec-WebSocket-Key");
}

/** One request and what the app makes of it. */
class Exchange {
  readonly name: string;
  readonly #serving: Serving;
  readonly #incoming: IncomingMessage;
  readonly #signal: AbortSignal;
  readonly #later = new Work();
  #arrived: Arrived | undefined;

  constructor(serving: Serving, incoming: IncomingMessage, signal: AbortSignal) {
    this.name = `${incoming.method} ${incoming.url}`;
    this.#serving = serving;
    this.#incoming = incoming;
    this.#signal = signal;
  }

  /** The app's answer, or ours where it has none; never throws. */
  async response(): Promise<Response> {
    try {
      this.#arrived = requestOf(this.#incoming, this.#signal);
      return requireResponse(await this.#serving.fetch(this.#arrived.request, this.#context()));
    } catch (error) {
      return this.#refuse(error);
    }
  }

  /** Sends it. Afterwards nobody wants what is left of the request's body, unless something is still being done. */
  async answerTo(outgoing: ServerResponse, response: Response): Promise<void> {
    try {
      if (isSwitching(response)) drop(response);
      if (response.status === 101) throw new TypeError("Cannot answer with a WebSocket: the request asks for none");
      await answer(response, outgoing);
    } catch (error) {
      const instead = this.#refuse(error);
      if (!outgoing.headersSent && !outgoing.destroyed) await answer(instead, outgoing);
    }
    await this.#later.done();
    this.#arrived?.discardRest();
  }

  #refuse(error: unknown): Response {
    if (error instanceof RefusedRequest) return page(error.status, error.message);
    // a fetch that was given the visitor's signal throws when the visitor goes
    if (!this.#signal.aborted) tellTrouble(this.name, error);
    return page(500, "Something went wrong in the app; it is told where the app runs");
  }

  #context(): ExecutionContext {
    return {
      waitUntil: (promise) => {
        const work = Promise.resolve(promise);
        work.catch((error: unknown) => tellTrouble(`waitUntil of ${this.name}`, error));
        this.#later.add(work);
        this.#serving.work.add(work);
      },
      passThroughOnException() {},
    };
  }
}

function requireResponse(value: unknown): Response {
  if (value instanceof Response) return value;
  const what = value === null || typeof value !== "object" ? String(value) : "something else";
  throw new TypeError(`Cannot answer: the app's fetch gave ${what}, not a Response`);
}

function page(status: number, text: string, headers: Record<string, string> = {}): Response {
  return new Response(`${text}\n`, { status, headers: { "content-type": "text/plain; charset=utf-8", ...headers } });
}

function goneReason(): DOMException {
  return new DOMException("The client has gone", "AbortError");
}
