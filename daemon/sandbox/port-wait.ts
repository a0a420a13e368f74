import { request } from "node:http";
import type { Duplex } from "node:stream";
import { z } from "zod";
import { AgentProcess } from "../../protocol/agent.ts";
import { ListeningPort } from "../../protocol/agent-live.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { PortEvent } from "../../protocol/process.ts";
import type { VerbInput } from "../../protocol/verbs.ts";
import { dial } from "../link/dial.ts";
import { readLog } from "../link/log.ts";
import { processPath } from "./process-log.ts";
import type { Run } from "./run.ts";

type Query = VerbInput<"waitForPort">["query"];

/** The first looks follow quickly: most servers listen within a second. */
const firstPauseMs = 10;

/** However rarely the port is looked at, the end of the process is told soon. */
const longestDeafMs = 500;

/** A server that takes a connection and does not answer is asked again. */
const answerLimitMs = 5_000;

/**
 * Waits until a port of the sandbox is ready. It reads the kernel's table of listening sockets, and only when somebody listens
 * connects to the port. Throws PROCESS_NOT_FOUND at once; in the stream PROCESS_EXITED_BEFORE_READY when the process ends,
 * PROCESS_READY_TIMEOUT after `timeoutMs`.
 */
export async function waitForPort(
  run: Run,
  process: string,
  query: Query,
  signal: AbortSignal,
): Promise<AsyncGenerator<{ event: PortEvent }>> {
  await requireRunning(run, process, query.port);
  return unlessRunEnds(run, process, query.port, wait(run, process, query, signal));
}

async function* unlessRunEnds<T>(
  run: Run,
  process: string,
  port: number,
  events: AsyncGenerator<T>,
): AsyncGenerator<T> {
  try {
    yield* events;
  } catch (error) {
    if (!SandboxError.is(error, "AGENT_UNREACHABLE") || !(await run.endIfDead())) throw error;
    const words = `Cannot wait for port ${port}: the sandbox stopped, and process "${process}" with it`;
    throw new SandboxError("PROCESS_EXITED_BEFORE_READY", words, { details: { processId: process } });
  }
}

async function* wait(
  run: Run,
  process: string,
  query: Query,
  signal: AbortSignal,
): AsyncGenerator<{ event: PortEvent }> {
  const deadlineMs = performance.now() + (query.timeoutMs ?? Infinity);
  let looked: Looked | undefined;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 1.5, query.intervalMs)) {
    const now = await look(run, query, deadlineMs, signal);
    // what the deadline has cut off says less than the look before
    if (!looked || "ready" in now || performance.now() < deadlineMs) looked = now;
    if ("ready" in looked) {
      yield { event: { type: "complete", timestamp: new Date().toISOString(), port: query.port, ...looked.ready } };
      return;
    }
    const nextMs = Math.min(performance.now() + pauseMs, deadlineMs);
    for (let leftMs = 1; leftMs > 0;) {
      await requireRunning(run, process, query.port);
      if (performance.now() >= deadlineMs) throw late(process, query, looked);
      leftMs = nextMs - performance.now();
      await pause(Math.min(Math.max(leftMs, 0), longestDeafMs), signal);
    }
  }
}

type Looked = { ready: { status?: number } } | { why: string; listening: ListeningPort[] };

async function look(run: Run, query: Query, deadlineMs: number, signal: AbortSignal): Promise<Looked> {
  const { ports } = await run.link.call(z.object({ ports: z.array(ListeningPort) }), "/ports", { signal });
  if (!ports.some(({ port }) => port === query.port)) return { why: "nobody listens on it", listening: ports };
  const limit = AbortSignal.timeout(Math.ceil(Math.max(1, Math.min(answerLimitMs, deadlineMs - performance.now()))));
  try {
    using socket = owned(await dial(run.link, query.port, AbortSignal.any([signal, limit])));
    if (query.mode === "tcp") return { ready: {} };
    const status = await statusOf(socket.stream, query, limit);
    if (status >= query.minStatus && status <= query.maxStatus) return { ready: { status } };
    return { why: `GET ${query.path} is answered with status ${status}`, listening: ports };
  } catch (error) {
    signal.throwIfAborted();
    if (SandboxError.is(error, "AGENT_UNREACHABLE") && !limit.aborted) throw error;
    const why = limit.aborted ? "it does not answer" : (error as Error).message;
    return { why, listening: ports };
  }
}

function owned(stream: Duplex): Disposable & { stream: Duplex } {
  stream.on("error", () => {}); // told by whoever reads; afterwards nobody cares
  return { stream, [Symbol.dispose]: () => void stream.destroy() };
}

/** What a GET is answered with; the body is not read. */
function statusOf(stream: Duplex, { path, port }: Query, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = { host: `localhost:${port}`, accept: "*/*", connection: "close" };
    const outgoing = request({ createConnection: () => stream, path, headers, signal });
    outgoing.on("response", (response) => {
      response.on("error", () => {}); // its body is not wanted
      resolve(response.statusCode ?? 0);
    });
    outgoing.on("error", reject);
    outgoing.on("upgrade", ({ statusCode = 0 }) => resolve(statusCode));
    outgoing.end();
  });
}

/** How much of the end of a log is told with an error. */
const lastWordsBytes = 4_096;
const lastWordsLines = 10;

async function requireRunning(run: Run, id: string, port: number): Promise<void> {
  const path = processPath(id);
  const { end, offset, windowStart } = await run.link.call(AgentProcess, path);
  if (!end) return;
  const after = Math.max(windowStart, offset - lastWordsBytes);
  const response = await run.link.open(`${path}/log`, { query: { after, follow: false } });
  const pieces: Uint8Array[] = [];
  for await (const entry of readLog(response, after)) if (entry.type === "output") pieces.push(entry.bytes);
  const lines = Buffer.concat(pieces).toString("utf8").trimEnd().split("\n").slice(-lastWordsLines).join("\n");
  const words = lines === "" ? "It printed nothing" : `It printed last:\n${lines}`;
  const how = end.signal === undefined ? `with exit code ${end.exitCode}` : `by ${end.signal}`;
  throw new SandboxError(
    "PROCESS_EXITED_BEFORE_READY",
    `Cannot wait for port ${port}: process "${id}" ended ${how}. ${words}`,
    { details: { processId: id, exitCode: end.exitCode, ...(end.signal && { signal: end.signal }), output: lines } },
  );
}

/** What is told of who listens: a sandbox may have thousands of ports, and any name for a program. */
const toldPorts = 10;
const toldNameChars = 32;

function late(id: string, query: Query, { why, listening }: { why: string; listening: ListeningPort[] }): SandboxError {
  const { port, timeoutMs } = query;
  const there = new Map(listening.map((one) => [one.port, one.program?.slice(0, toldNameChars)]));
  const told = [...there].slice(0, toldPorts);
  const others = told.map(([number, program]) => (program === undefined ? `${number}` : `${number} (${program})`));
  const words = others.length > 0 ? `; listened on are ${others.join(", ")}` : "";
  return new SandboxError(
    "PROCESS_READY_TIMEOUT",
    `Cannot see port ${port} of process "${id}" ready within ${timeoutMs} ms: ${why}${words}`,
    { details: { processId: id, port, timeoutMs, listening: told.map(([number]) => number) } },
  );
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error);
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
