import type { IncomingMessage } from "node:http";

/** A request that nobody can understand: 400, or what `status` says. */
export class RefusedRequest extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** What a Request cannot have, by the standard. */
const impossibleMethods: ReadonlySet<string> = new Set(["CONNECT", "TRACE", "TRACK"]);

/** A Request, and what lets the connection go on when nobody wants the rest of its body. */
export type Arrived = { request: Request; discardRest(): void };

/** The Request that arrived; its body is read at the pace at which it is wanted. Throws RefusedRequest. */
export function requestOf(incoming: IncomingMessage, signal: AbortSignal): Arrived {
  const { method = "GET" } = incoming;
  if (impossibleMethods.has(method)) throw new RefusedRequest(405, `The method ${method} is not served`);
  const body = method !== "GET" && method !== "HEAD" && isExpected(incoming) ? bodyOf(incoming) : undefined;
  try {
    const request = new Request(urlOf(incoming), {
      method,
      headers: headersOf(incoming.rawHeaders),
      signal,
      // the type does not know `duplex` everywhere
      ...(body && ({ body: body.stream, duplex: "half" } as object)),
    });
    return { request, discardRest: () => body?.discardRest() };
  } catch (error) {
    if (error instanceof RefusedRequest) throw error;
    throw new RefusedRequest(400, `The request is malformed: ${(error as Error).message}`);
  }
}

/** As URLs have it: a name or an address, perhaps a port, and nothing that means something else there. */
const plausibleHost = /^([\w.~-]+|\[[\da-f:.]+\])(:\d{1,5})?$/i;

/** Host alone decides where a request is for, also when its target names another. */
function urlOf({ url: target = "/", headers, headersDistinct, socket }: IncomingMessage): string {
  if ((headersDistinct["host"]?.length ?? 0) > 1) throw new RefusedRequest(400, "The request has two Host headers");
  const host = headers.host || `localhost:${socket.localPort}`; // HTTP/1.0 may say none
  if (!plausibleHost.test(host)) throw new RefusedRequest(400, "The Host header is malformed");
  const path = target.replace(/^https?:\/\/[^/?#]*/i, "");
  return `http://${host}${path.startsWith("/") ? "" : "/"}${path}`;
}

export function headersOf(raw: readonly string[]): Headers {
  const headers = new Headers();
  for (let at = 0; at < raw.length; at += 2) headers.append(raw[at] ?? "", raw[at + 1] ?? "");
  return headers;
}

function isExpected({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

/** An incoming body, read when it is asked for. Who cancels it can still answer: the connection is not cut. */
export function bodyOf(incoming: IncomingMessage): { stream: ReadableStream<Uint8Array>; discardRest(): void } {
  let isOver = false;
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  // Nothing waits here beside what Node has read already.
  const stream = new ReadableStream<Uint8Array>(
    {
      start: (own) => void (controller = own),
      pull: () => void incoming.resume(),
      cancel() {
        isOver = true;
        incoming.resume();
      },
    },
    { highWaterMark: 0 },
  );
  incoming.on("data", (chunk: Buffer) => {
    if (isOver) return;
    incoming.pause();
    controller.enqueue(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length));
  });
  incoming.pause();
  incoming.on("end", () => over(() => controller.close()));
  incoming.on("error", (error) => over(() => controller.error(error)));
  incoming.on("close", () => over(() => controller.error(new Error("The connection was closed within the body"))));
  return {
    stream,
    discardRest() {
      over(() => controller.error(new Error("The answer has left, and with it what was not read of the body")));
      if (!incoming.complete) incoming.resume();
    },
  };

  function over(tell: () => void): void {
    if (!isOver) tell();
    isOver = true;
  }
}
