import { Agent, request, type ClientRequest, type IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { z } from "zod";
import { SandboxError } from "../../protocol/errors.ts";
import { connectAgent, unreachable } from "./connect.ts";

/** Longest JSON answer that is read: a list of a few thousand processes. More is a lie. */
const jsonLimitBytes = 8 * 1024 * 1024;

/** An agent answers in well under a millisecond; a sandbox out of CPU may need seconds. After this it counts as hung. */
const answerLimitMs = 30_000;

/** Ended quickly, so that idle connections do not outlive a run by much; each costs both sides a few kilobytes. */
const idleConnectionMs = 5_000;

export type LinkRequest = {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  query?: Record<string, string | number | boolean | undefined>;
  json?: unknown;
  /** A raw body, sent with back-pressure; its failure ends the request without a proper end. */
  body?: AsyncIterable<Uint8Array>;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** How long the agent may take to begin its answer; false where the answer waits for something. */
  answerWithinMs?: number | false;
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
    return parseAnswer(schema, await readText(response, jsonLimitBytes));
  }

  /** The answer's bytes as they come; a refusal throws. The caller reads the stream or destroys it. */
  async open(path: string, options: LinkRequest = {}): Promise<IncomingMessage> {
    const response = await this.#send(path, options);
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    throw refusal(status, await readText(response, 64 * 1024));
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

async function readText(response: IncomingMessage, limitBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limitBytes) throw unreachable(`its answer is longer than ${limitBytes} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw SandboxError.is(error) ? error : unreachable("its answer was cut off", error);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Parses what an agent sent. Throws AGENT_UNREACHABLE, because an agent that talks nonsense is none. */
export function parseAnswer<T>(schema: z.ZodType<T>, text: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw unreachable("its answer is not JSON", error);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw unreachable(`its answer makes no sense: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
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
