import { request, type IncomingMessage } from "node:http";
import { GatewayLine } from "../../protocol/gateway.ts";

/**
 * Asks the gateway behind the unix socket `path` and gives what it answers, parsed as JSON but not yet checked. Throws when it
 * refuses (GatewayRefusal), does not answer in 10 s (the signal's TimeoutError), says too much, or `signal` comes.
 */
export async function callGateway(
  path: string,
  method: string,
  route: string,
  body: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(answerMs)]);
  const response = await send(path, method, route, body, limited);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > answerLimitBytes)
      throw new Error(`Cannot read the gateway's answer to ${method} ${route}: it is too long`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString("utf8");
  if (response.statusCode !== 200)
    throw new GatewayRefusal(`Cannot ${method} ${route} of the gateway: ${text.slice(0, 500)}`);
  return JSON.parse(text);
}

/** The gateway is there and well, and will not do it. */
export class GatewayRefusal extends Error {}

/** Reads the gateway's log lines for as long as it lives. Resolves at its end, or when `signal` comes; never rejects. */
export async function followGateway(
  path: string,
  signal: AbortSignal,
  onLine: (line: GatewayLine) => void,
): Promise<void> {
  try {
    const response = await send(path, "GET", "/events", undefined, signal);
    let rest = "";
    for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) {
      const texts = (rest + chunk).split("\n");
      rest = texts.pop()!;
      if (rest.length > lineLimitBytes) return;
      for (const text of texts) {
        const line = GatewayLine.safeParse(parse(text));
        if (line.success) onLine(line.data);
      }
    }
  } catch {
    // Whatever ended the stream: the gateway is not there any more, or not as it should be.
  }
}

function send(
  path: string,
  method: string,
  route: string,
  body: unknown,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: path, method, path: route, signal, agent: false }, resolve);
    call.on("error", (error) => reject(signal.aborted ? signal.reason : error));
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** It answers in a millisecond; one that needs this long is stuck. */
const answerMs = 10_000;
/** The table of 100,000 connections. */
const answerLimitBytes = 32 * 1024 * 1024;
const lineLimitBytes = 16 * 1024;
