import type { Duplex } from "node:stream";
import { hangUp, PairedSocket, WebSocketPair } from "./web-socket-pair.ts";

/** A connection to another server that has agreed to become a WebSocket, with what it said. */
export class Upstream {
  readonly headers: readonly string[];
  readonly #socket: Duplex;
  #isTaken = false;

  /** `signal` ends it while nobody has taken it. */
  constructor(socket: Duplex, headers: readonly string[], signal: AbortSignal | null | undefined) {
    this.#socket = socket;
    this.headers = headers;
    socket.on("error", () => {}); // told by its close
    signal?.addEventListener("abort", () => this.#isTaken || socket.destroy(), { once: true });
  }

  /** The connection, once. */
  take(): Duplex {
    if (this.#isTaken) throw twice();
    this.#isTaken = true;
    return this.#socket;
  }

  drop(): void {
    if (!this.#isTaken) this.#socket.destroy();
  }

  accept(): never {
    throw new TypeError(
      "Cannot accept this WebSocket: it can only be returned, as part of the Response that it came with",
    );
  }
}

/** A Response of status 101. */
export type Switching = Response & { webSocket: PairedSocket | Upstream };

const PlainResponse = globalThis.Response;

/** Node's Response refuses the status 101. */
export function switching(webSocket: PairedSocket | Upstream, headers: HeadersInit | undefined): Switching {
  return asSwitching(new PlainResponse(null, headers && { headers }), webSocket);
}

function asSwitching(response: Response, webSocket: PairedSocket | Upstream): Switching {
  const values = { status: 101, statusText: "Switching Protocols", ok: false, webSocket };
  for (const [name, value] of Object.entries(values)) Object.defineProperty(response, name, { value });
  return response as Switching;
}

/** Ends what no visitor gets, so that whoever holds the other end does not wait for one. */
export function drop({ webSocket }: Switching): void {
  if (webSocket instanceof Upstream) webSocket.drop();
  else if (!given.has(webSocket)) hangUp(webSocket, { code: 1006, wasClean: false });
}

const given = new WeakSet<PairedSocket>();

/** This end becomes a visitor's, once. */
export function give(webSocket: PairedSocket): void {
  if (given.has(webSocket)) throw twice();
  given.add(webSocket);
}

function twice(): TypeError {
  return new TypeError("Cannot answer with a WebSocket twice");
}

export function isSwitching(response: Response): response is Switching {
  return response.status === 101 && "webSocket" in response;
}

/** Gives the runtime what Workers have: WebSocketPair, and Response with `{ status: 101, webSocket }`. */
export function installWebSockets(): void {
  const Extended = new Proxy(PlainResponse, {
    construct(target, args: [body?: BodyInit | null, init?: ResponseInit & { webSocket?: unknown }], newTarget) {
      const [body, init] = args;
      if (init?.status !== 101) return Reflect.construct(target, args, newTarget) as Response;
      const { webSocket, headers } = init;
      if (!(webSocket instanceof PairedSocket || webSocket instanceof Upstream))
        throw new TypeError("Cannot make a Response of status 101: webSocket is no end of a WebSocketPair");
      if (body != null) throw new TypeError("Cannot make a Response of status 101: it has a body");
      const response = Reflect.construct(target, [null, headers && { headers }], newTarget) as Response;
      return asSwitching(response, webSocket);
    },
  });
  for (const [name, value] of Object.entries({ WebSocketPair, Response: Extended })) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
}
