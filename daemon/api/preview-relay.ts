import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { SandboxError } from "../../protocol/errors.ts";
import type { Run } from "../sandbox/run.ts";
import { AnswerReader, nonsense } from "./answer-reader.ts";
import { connectInner, type InnerConnection, type InnerUser, takeIdle } from "./inner-connection.ts";
import { Pace } from "./pace.ts";
import { lengthOf, withCopy } from "./piece.ts";
import { StreamUse } from "./preview-use.ts";
import { toInner, toVisitor, type Visitor } from "./preview-headers.ts";

/** A visitor who still sends when the answer is complete is listened to for so long, so that the answer is not lost with a reset. */
const lingerMs = 2_000;

/** Those that fetch would follow. */
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** With its head it is no more than Node writes without a buffer of its own (16 KiB). */
const smallBytes = 15 * 1024;

/** So much is kept for a visitor who is slower than the server: to stop and go at every piece would keep both waiting. */
const aheadBytes = 128 * 1024;

/** A read that holds more chunks takes long to look through: others have their turn before the next, of which libuv would make 32. */
const chunksPerTurn = 64;

/** One request on its way to a port of a run. */
export type Passage = {
  run: Run;
  port: number;
  /** Path and query for the inner server. */
  path: string;
  visitor: Visitor;
  /** How long the port may be waited for; aborts also when the visitor has gone. */
  within(): AbortSignal;
  /** Whether the page shares its origin with others'. */
  shared: boolean;
  /** A redirect's status is told in a header: see DESIGN.md, Wire. */
  redirectsAs200: boolean;
  /** The inner server has begun to answer: from now on only what flows is use. */
  onAnswer(): void;
};

/** A server that agrees to the protocol that was asked for: from now on the connection speaks that. */
export type Agreed = { headers: string[]; inner: Socket };

/**
 * Passes a request on and its answer back, at the pace of whoever is slower. Resolves when that has left, or cannot. Throws
 * while nothing has been answered: SERVICE_NOT_RESPONDING, or what waiting for the port threw. Later a failure cuts the
 * visitor off. Gives something only to a request for another protocol, when the server agrees to it.
 */
export function relay(
  request: IncomingMessage,
  response: ServerResponse,
  passage: Passage,
  upgrade?: string,
): Promise<Agreed | undefined> {
  const { run, port } = passage;
  const { method = "GET", headers } = request;
  const hasBody = headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
  const isSafe = !hasBody && (method === "GET" || method === "HEAD");
  const head = innerHead(request, passage, hasBody, upgrade);
  const exchange = (connection: InnerConnection) =>
    new Exchange({ request, response, passage, connection, head, hasBody, upgrade }).done;
  // what must not be asked twice has a connection of its own: an idle one may be closed just when it is to be used
  const idle = isSafe && upgrade === undefined ? takeIdle(run, port) : undefined;
  if (idle) return exchange(idle);
  return connectInner(run, port, passage.within(), upgrade !== undefined).then(exchange);
}

type ExchangeOptions = {
  request: IncomingMessage;
  response: ServerResponse;
  passage: Passage;
  connection: InnerConnection;
  head: string;
  hasBody: boolean;
  upgrade: string | undefined;
};

/** A request and its answer on a connection to the inner server. */
class Exchange implements InnerUser {
  readonly done: Promise<Agreed | undefined>;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #passage: Passage;
  readonly #connection: InnerConnection;
  readonly #reader: AnswerReader;
  readonly #upload: Upload | undefined;
  readonly #use: StreamUse;
  readonly #settled = Promise.withResolvers<Agreed | undefined>();
  #heard = false;
  readonly #pace: Pace;
  #isOver = false;

  constructor({ request, response, passage, connection, head, hasBody, upgrade }: ExchangeOptions) {
    const { run } = passage;
    this.done = this.#settled.promise;
    this.#request = request;
    this.#response = response;
    this.#passage = passage;
    this.#connection = connection;
    this.#pace = new Pace(connection.socket, () => this.#isOver);
    this.#reader = new AnswerReader(request.method ?? "GET", upgrade !== undefined);
    this.#use = new StreamUse(run.activity);
    connection.use(this);
    response.on("close", this.#onGone);
    if (hasBody) connection.hearOut();
    if (hasBody) this.#upload = new Upload(request, connection.socket, head, run);
    else connection.socket.write(head, "latin1");
  }

  onData(chunk: Buffer): void {
    const reader = this.#reader;
    const isFirst = reader.head === undefined;
    this.#heard = true;
    let parts: readonly Buffer[];
    try {
      parts = reader.push(chunk);
      if (isFirst && reader.head) {
        this.#passage.onAnswer();
        if (reader.head.status === 101) return this.#agree();
        this.#begin();
      }
    } catch (error) {
      return this.#fail(error);
    }
    if (!isFirst) this.#use.flow(chunk.length);
    if (reader.isComplete) return this.#complete(parts);
    if (reader.head === undefined) return;
    if (parts.length > 0) this.#write(parts);
    else if (isFirst) this.#response.flushHeaders();
  }

  onEnd(): void {
    if (this.#isStale()) return this.#askAnother();
    try {
      this.#reader.finish();
    } catch (error) {
      return this.#fail(error);
    }
    this.#complete([]);
  }

  onClose(error: Error | undefined): void {
    if (this.#isStale()) return this.#askAnother();
    const words = error ? `the connection broke (${error.message})` : "it closed the connection without an answer";
    this.#fail(nonsense(words, error));
  }

  /** An idle connection was closed just when it was used. */
  #isStale(): boolean {
    return this.#connection.isUsed && !this.#heard;
  }

  #askAnother(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connection.destroy();
    this.#response.off("close", this.#onGone);
    this.#settled.resolve(relay(this.#request, this.#response, this.#passage));
  }

  #begin(): void {
    const { status, message, headers } = this.#reader.head!;
    const { shared, redirectsAs200 } = this.#passage;
    const shown = toVisitor(headers, status, shared);
    try {
      if (redirectsAs200 && redirects.has(status))
        this.#response.writeHead(200, [...shown, "Atoll-Status", `${status}`]);
      else this.#response.writeHead(status, message, shown);
    } catch (error) {
      throw nonsense((error as Error).message, error);
    }
  }

  /** What was read at once leaves as one piece, however small the chunks are that it came in. */
  #write(parts: readonly Buffer[]): void {
    const response = this.#response;
    withCopy(parts, (copy, done) =>
      response.write(copy, () => {
        done();
        this.#pace.taken();
      }),
    );
    this.#pace.add(response.writableLength >= aheadBytes || parts.length > chunksPerTurn);
  }

  /** The last piece leaves with the end: a small answer is one write, head and all. */
  #complete(parts: readonly Buffer[]): void {
    this.#isOver = true;
    const isSent = this.#upload?.isSent ?? true;
    this.#upload?.stop();
    if (isSent && this.#reader.keepsAlive) this.#connection.giveBack();
    else this.#connection.destroy();
    if (parts.length === 0) this.#response.end();
    // as text it is joined with the head, and is one piece for the kernel
    else if (lengthOf(parts) <= smallBytes) this.#response.end(textOf(parts), "latin1");
    else withCopy(parts, (copy, done) => this.#response.end(copy, done));
    if (!this.#request.complete) linger(this.#request);
  }

  #agree(): void {
    const { head, rest } = this.#reader;
    this.#isOver = true;
    this.#response.off("close", this.#onGone);
    const inner = this.#connection.detach();
    inner.allowHalfOpen = true;
    if (rest.length > 0) inner.unshift(rest);
    this.#settled.resolve({ headers: head!.headers, inner });
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connection.destroy();
    this.#upload?.stop();
    this.#request.resume(); // whoever sends is to hear the answer
    if (this.#response.headersSent) return void this.#request.socket.destroy();
    this.#response.off("close", this.#onGone);
    this.#settled.reject(error);
  }

  /** The answer has left, or whoever asked has. */
  readonly #onGone = () => {
    if (!this.#isOver) {
      this.#isOver = true;
      this.#upload?.stop();
      this.#connection.destroy();
    }
    this.#settled.resolve(undefined);
  };
}

function textOf(parts: readonly Buffer[]): string {
  let text = "";
  for (const part of parts) text += part.toString("latin1");
  return text;
}

function innerHead(
  request: IncomingMessage,
  { path, port, visitor }: Passage,
  hasBody: boolean,
  upgrade?: string,
): string {
  const { method = "GET", rawHeaders } = request;
  const headers = toInner(rawHeaders, port, visitor, upgrade);
  if (upgrade === undefined) headers.push("Connection", "keep-alive");
  // a server that waits for a body must be told that there is none, except where none is usual
  const isUsual = hasBody || ["GET", "HEAD", "OPTIONS", "TRACE"].includes(method);
  if (!isUsual && request.headers["content-length"] === undefined) headers.push("Content-Length", "0");
  let text = `${method} ${path} HTTP/1.1\r\n`;
  for (let at = 0; at < headers.length; at += 2) {
    const value = headers[at + 1] ?? "";
    // Node's parser lets none through; here it would be a header, or a request, of the visitor's own making
    if (/[\r\n\0]/.test(value)) {
      throw new SandboxError("VALIDATION_FAILED", "Cannot pass the request on: one of its headers has a line break");
    }
    text += `${headers[at]}: ${value}\r\n`;
  }
  return `${text}\r\n`;
}

/** A request's body on its way to the inner server, framed as it came; Node has seen to its length. */
class Upload {
  isSent = false;
  readonly #pace: Pace;
  readonly #request: IncomingMessage;
  readonly #socket: Socket;
  readonly #run: Run;
  readonly #isChunked: boolean;

  constructor(request: IncomingMessage, socket: Socket, head: string, run: Run) {
    this.#request = request;
    this.#socket = socket;
    this.#run = run;
    this.#pace = new Pace(request, () => this.isSent);
    this.#isChunked = request.headers["transfer-encoding"] !== undefined;
    socket.write(head, "latin1");
    request.on("data", this.#onData).on("end", this.#onEnd);
  }

  stop(): void {
    this.#request.off("data", this.#onData).off("end", this.#onEnd);
  }

  readonly #onData = (chunk: Buffer) => {
    this.#run.activity.touch();
    if (this.#isChunked) this.#socket.cork();
    if (this.#isChunked) this.#socket.write(`${chunk.length.toString(16)}\r\n`, "latin1");
    let more = this.#socket.write(chunk, this.#isChunked ? undefined : this.#pace.taken);
    if (this.#isChunked) more = this.#socket.write("\r\n", "latin1", this.#pace.taken);
    if (this.#isChunked) this.#socket.uncork();
    this.#pace.add(!more);
  };

  readonly #onEnd = () => {
    this.isSent = true;
    if (this.#isChunked) this.#socket.write("0\r\n\r\n", "latin1");
  };
}

function linger(request: IncomingMessage): void {
  const timer = setTimeout(() => request.socket.destroy(), lingerMs).unref();
  request.once("close", () => clearTimeout(timer));
  request.resume();
}
