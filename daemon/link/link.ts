import { Agent, request, type ClientRequest, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { z } from "zod";
import { SandboxError } from "../../protocol/errors.ts";
import { connectAgent, unreachable } from "./connect.ts";

/** Longest JSON answer that is read where the call says nothing else: a file's paths are 4 KiB each, escaped at worst sixfold. */
const jsonLimitBytes = 1024 * 1024;

/** Deeper than anything that an agent says; a parser needs 60 bytes for each bracket that is open. */
const nestingLimit = 64;

/** An agent answers in well under a millisecond; a sandbox out of CPU may need seconds. After this it counts as hung. */
const answerLimitMs = 30_000;

/** Ended quickly, so that idle connections do not outlive a run by much; each costs both sides a few kilobytes. */
const idleConnectionMs = 5_000;

/** What an agent answers when it does what it was asked. Others that HTTP has, such as 204, would be a lie with a body or without. */
const successes: ReadonlySet<number> = new Set([200, 201, 202, 206]);

export type LinkRequest = {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  query?: Record<string, string | number | boolean | undefined>;
  json?: unknown;
  /** A raw body, sent with back-pressure; its failure ends the request without a proper end. */
  body?: AsyncIterable<Uint8Array>;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** How long the agent may take to begin its answer, and to end a JSON one; false where its beginning waits for something. */
  answerWithinMs?: number | false;
  /** Longest JSON answer that is read; more is a lie. Default 1 MiB. */
  jsonLimitBytes?: number;
};

/**
 * The daemon's connection to one agent. Everything that comes back is untrusted: sizes are bounded, JSON is parsed by
 * schema, refusals must be error bodies. Errors: AGENT_UNREACHABLE when there is no proper answer, else what the agent said.
 */
export class Link {
  readonly #linkDir: string;
  readonly #connections: Agent;

  constructor(linkDir: string) {
    this.#linkDir = linkDir;
    this.#connections = new Agent({ keepAlive: true, timeout: idleConnectionMs, maxFreeSockets: 4 });
    this.#connections.createConnection = () => connectAgent(this.#linkDir);
  }

  /** One JSON answer, parsed by `schema`. */
  async call<T>(schema: z.ZodType<T>, path: string, options: LinkRequest = {}): Promise<T> {
    const response = await this.open(path, options);
    return parseAnswer(
      schema,
      await readText(response, options.jsonLimitBytes ?? jsonLimitBytes, options.answerWithinMs || answerLimitMs),
    );
  }

  /** The answer's bytes as they come; a refusal throws. The caller reads the stream or destroys it. */
  async open(path: string, options: LinkRequest = {}): Promise<IncomingMessage> {
    const response = await this.#send(path, options);
    const status = response.statusCode ?? 0;
    if (successes.has(status)) return response;
    throw await readRefusal(response, options.answerWithinMs || answerLimitMs);
  }

  /** A connection of its own, for what does not stay HTTP. */
  connect(): Socket {
    return connectAgent(this.#linkDir);
  }

  #send(path: string, options: LinkRequest): Promise<IncomingMessage> {
    const body = options.json === undefined ? undefined : JSON.stringify(options.json);
    return new Promise((resolve, reject) => {
      options.signal?.throwIfAborted();
      let outgoing: ClientRequest;
      const limitMs = options.answerWithinMs ?? answerLimitMs;
      const timer = limitMs && setTimeout(() => outgoing.destroy(unreachable(`no answer in ${limitMs} ms`)), limitMs);
      const settle = () => {
        if (timer) clearTimeout(timer);
      };
      try {
        outgoing = request({
          agent: this.#connections,
          method: options.method ?? "GET",
          path: `${path}${queryText(options.query)}`,
          headers: {
            ...options.headers,
            ...(body !== undefined && {
              "content-type": "application/json",
              "content-length": Buffer.byteLength(body),
            }),
          },
          maxHeaderSize: 32 * 1024,
        });
      } catch (error) {
        settle();
        return reject(error);
      }
      const { signal } = options;
      // Node's own option would also destroy a connection that has gone back to the pool.
      const onAbort = () => outgoing.destroy(unreachable("the caller has gone"));
      signal?.addEventListener("abort", onAbort, { once: true });
      outgoing.on("close", () => signal?.removeEventListener("abort", onAbort));
      outgoing.on("error", (error) => {
        settle();
        if (options.signal?.aborted) reject(options.signal.reason);
        else reject(SandboxError.is(error) ? error : unreachable(error.message, error));
      });
      outgoing.on("response", (response) => {
        settle();
        resolve(response);
      });
      // An agent sends neither; one that is none could send them for ever.
      outgoing.on("information", () => outgoing.destroy(unreachable("it announces an answer without giving it")));
      outgoing.on("upgrade", (_response, socket) => {
        settle();
        socket.destroy();
        reject(unreachable("it changes the protocol"));
      });
      if (options.body) sendBody(outgoing, options.body);
      else outgoing.end(body);
    });
  }

  /** Ends all connections; requests under way fail. */
  close(): void {
    this.#connections.destroy();
  }
}

/** A body that fails is cut off, never properly ended: the agent must not take half for the whole. */
function sendBody(outgoing: ClientRequest, body: AsyncIterable<Uint8Array>): void {
  const source = Readable.from(body, { objectMode: false });
  source.on("error", (error) => outgoing.destroy(error));
  outgoing.on("close", () => source.destroy());
  source.pipe(outgoing);
}

function queryText(query: LinkRequest["query"]): string {
  if (!query) return "";
  const entries = Object.entries(query).flatMap(([name, value]) => {
    if (value === undefined) return [];
    return [[name, typeof value === "boolean" ? (value ? "1" : "0") : String(value)]];
  });
  return entries.length === 0 ? "" : `?${new URLSearchParams(entries)}`;
}

async function readText(response: IncomingMessage, limitBytes: number, limitMs: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => response.destroy(unreachable(`its answer has no end after ${limitMs} ms`)), limitMs);
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limitBytes) throw unreachable(`its answer is longer than ${limitBytes} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw SandboxError.is(error) ? error : unreachable("its answer was cut off", error);
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Parses what an agent sent. Throws AGENT_UNREACHABLE, because an agent that talks nonsense is none. */
export function parseAnswer<T>(schema: z.ZodType<T>, text: string): T {
  let value: unknown;
  if (nestsTooDeep(text)) throw unreachable(`its answer is nested deeper than ${nestingLimit}`);
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw unreachable("its answer is not JSON", error);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw unreachable(`its answer makes no sense: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** Read by hand: an expression that skips strings takes quadratic time over what is no JSON. */
function nestsTooDeep(text: string): boolean {
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '"') quoted = !quoted;
    else if (quoted) at += char === "\\" ? 1 : 0;
    else if (char === "[" || char === "{") depth += 1;
    else if (char === "]" || char === "}") depth -= 1;
    if (depth > nestingLimit) return true;
  }
  return false;
}

/** Why an agent did not do what it was asked. */
export async function readRefusal(response: IncomingMessage, limitMs = answerLimitMs): Promise<SandboxError> {
  return refusal(response.statusCode ?? 0, await readText(response, 64 * 1024, limitMs));
}

/** A refusal in the agent's words, cut to a sane length: they reach logs and users. */
function refusal(status: number, text: string): SandboxError {
  const body = parseAnswer(z.unknown(), text);
  const error = SandboxError.from(body);
  if (error.httpStatus !== status && error.code === "INTERNAL_ERROR")
    return unreachable(`it refused with status ${status}`);
  return new SandboxError(error.code, error.message.slice(0, 4_096), {
    details: error.details,
    suggestion: error.suggestion,
  });
}
