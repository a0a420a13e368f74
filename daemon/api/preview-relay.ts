import { type ClientRequest, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import { pipeline } from "node:stream";
import { SandboxError } from "../../protocol/errors.ts";
import type { Run } from "../sandbox/run.ts";
import { toInner, toVisitor, valueOf, type Visitor } from "./preview-headers.ts";
import { poolOf, type PoolRequest } from "./preview-pool.ts";

/** As many interim answers as any server has reason to give; one that gives them for ever has something else in mind. */
const interimLimit = 20;

/** What an inner server may say before its body begins. Node's own limit for visitors is 16 KiB. */
export const innerHeadBytes = 64 * 1024;

/** A visitor who still sends when the answer is complete is listened to for so long, so that the answer is not lost with a reset. */
const lingerMs = 2_000;

/** One request on its way to a port of a run. */
export type Passage = {
  run: Run;
  port: number;
  /** Path and query for the inner server. */
  path: string;
  visitor: Visitor;
  /** How long the port may be waited for; aborts also when the visitor has gone. */
  within: AbortSignal;
  /** Whether the page shares its origin with others'. */
  shared: boolean;
  /** The inner server has begun to answer: from now on only what flows is use. */
  onAnswer(): void;
};

/**
 * Passes a request on and its answer back, at the pace of whoever is slower. Throws while nothing has been answered:
 * SERVICE_NOT_RESPONDING, or what waiting for the port threw. Later a failure cuts the visitor off.
 */
export async function relay(request: IncomingMessage, response: ServerResponse, passage: Passage): Promise<void> {
  const hasBody =
    valueOf(request.rawHeaders, "transfer-encoding") !== undefined ||
    Number(valueOf(request.rawHeaders, "content-length") ?? 0) > 0;
  const isSafe = !hasBody && (request.method === "GET" || request.method === "HEAD");
  for (;;) {
    try {
      const answer = await ask(request, response, passage, hasBody);
      return await passBack(request, answer, response, passage);
    } catch (error) {
      // an idle connection was closed just when it was to be used: nobody has seen the request
      if (!(isSafe && error instanceof StaleConnection && !passage.within.aborted)) throw toTrouble(error);
    }
  }
}

class StaleConnection extends Error {}

/** Sends the request; its body goes on while the answer comes. */
function ask(
  request: IncomingMessage,
  response: ServerResponse,
  passage: Passage,
  hasBody: boolean,
): Promise<IncomingMessage> {
  const { run, port, path, visitor, within } = passage;
  return new Promise((resolve, reject) => {
    const options: PoolRequest = {
      agent: poolOf(run, port),
      method: request.method ?? "GET",
      path,
      headers: innerHeaders(request, port, visitor, hasBody),
      maxHeaderSize: innerHeadBytes,
      within,
    };
    const outgoing = httpRequest(options);
    guardInterim(outgoing);
    const onGone = () => outgoing.destroy(new Error("the visitor has gone"));
    response.once("close", onGone);
    outgoing.once("close", () => response.off("close", onGone));
    outgoing.on("response", resolve);
    outgoing.on("upgrade", (_, socket) => {
      socket.destroy();
      reject(nonsense("it changes the protocol without being asked"));
    });
    outgoing.on("error", (error: NodeJS.ErrnoException) => {
      request.unpipe(outgoing);
      request.resume(); // whoever sends is to hear the answer
      reject(outgoing.reusedSocket && isCut(error) ? new StaleConnection(error.message, { cause: error }) : error);
    });
    if (!hasBody) return void outgoing.end();
    request.on("data", () => run.activity.touch());
    request.pipe(outgoing);
  });
}

/** A server that waits for a body must be told that there is none, except where none is usual. */
function innerHeaders(request: IncomingMessage, port: number, visitor: Visitor, hasBody: boolean): string[] {
  const headers = toInner(request.rawHeaders, port, visitor);
  const isUsual = hasBody || ["GET", "HEAD", "OPTIONS", "TRACE"].includes(request.method ?? "");
  return isUsual || valueOf(headers, "content-length") !== undefined ? headers : [...headers, "Content-Length", "0"];
}

/** Interim answers are not passed on: they say nothing that a visitor needs. */
export function guardInterim(outgoing: ClientRequest): void {
  let left = interimLimit;
  outgoing.on("information", () => {
    if (left-- === 0) outgoing.destroy(nonsense("it announces an answer again and again without giving it"));
  });
}

/** The answer, as it comes. Resolves when it has left, or cannot. */
export function passBack(
  request: IncomingMessage,
  answer: IncomingMessage,
  response: ServerResponse,
  { run, shared, onAnswer }: Pick<Passage, "run" | "shared" | "onAnswer">,
): Promise<void> {
  onAnswer();
  const status = answer.statusCode ?? 0;
  try {
    if (status < 200) throw new RangeError(`${status} is no status of an answer`);
    response.writeHead(status, answer.statusMessage ?? "", toVisitor(answer.rawHeaders, status, shared));
  } catch (error) {
    answer.destroy();
    throw nonsense((error as Error).message, error);
  }
  response.flushHeaders();
  answer.on("data", () => run.activity.touch());
  return new Promise((resolve) => {
    // a failure on either side ends the other: the visitor sees an answer cut off, the server a reader who has gone
    pipeline(answer, response, () => {
      run.activity.touch();
      if (!request.complete) linger(request);
      resolve();
    });
  });
}

function linger(request: IncomingMessage): void {
  const timer = setTimeout(() => request.socket.destroy(), lingerMs).unref();
  request.once("close", () => clearTimeout(timer));
  request.resume();
}

export function toTrouble(error: unknown): unknown {
  if (SandboxError.is(error)) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (isCut(error as NodeJS.ErrnoException)) return nonsense("it closed the connection without an answer", error);
  if (code?.startsWith("HPE_") === true) return nonsense(`its answer is no HTTP (${message})`, error);
  if (error instanceof StaleConnection) return nonsense("it closed the connection", error);
  return error;
}

function isCut(error: NodeJS.ErrnoException): boolean {
  return ["ECONNRESET", "EPIPE", "ECONNABORTED"].includes(error.code ?? "");
}

export function nonsense(why: string, cause?: unknown): SandboxError {
  return new SandboxError("SERVICE_NOT_RESPONDING", `Cannot show what the server in the sandbox says: ${why}`, {
    cause,
    suggestion: "Look at the server's own log",
  });
}
