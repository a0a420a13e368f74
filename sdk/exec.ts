import { SandboxError } from "../protocol/errors.ts";
import { encodeEvent } from "../protocol/event-stream.ts";
import type { ExecEnd } from "../protocol/process.ts";
import { fromPublicId, runCommand, shown, toPublicId, type Command } from "./command.ts";
import { streamOf, withKeepAlive } from "./events.ts";
import type { ExecCallbacks, ExecEvent, ExecOptions, ExecResult } from "./exec-options.ts";
import { bytesOutput, textOutput, type Output } from "./output.ts";
import type { Scope } from "./scope.ts";

/** Holds what nearly every command prints, and a few of them at once. */
const defaultMaxBuffer = 16 * 1024 * 1024;
const defaultMaxBufferOfStreams = 1024 * 1024;

/** Runs a command to its end. Contract: SessionMethods.exec. */
export async function exec(
  scope: Scope,
  command: Command,
  options: ExecOptions & ExecCallbacks<string> & ExecCallbacks<Uint8Array>,
): Promise<ExecResult | ExecResult<Uint8Array>> {
  try {
    return options.encoding === "buffer"
      ? await collect<Uint8Array>(scope, command, options, bytesOutput)
      : await collect<string>(scope, command, options, textOutput);
  } catch (error) {
    options.onError?.(error instanceof Error ? error : new Error(String(error)));
    throw error;
  }
}

async function collect<T extends string | Uint8Array>(
  scope: Scope,
  command: Command,
  options: ExecOptions & ExecCallbacks<T>,
  output: (limitBytes: number) => Output<T>,
): Promise<ExecResult<T>> {
  const { onOutput } = options;
  const maxBuffer = limitOf(options.maxBuffer, defaultMaxBuffer);
  const streams = { stdout: output(maxBuffer), stderr: output(maxBuffer) };
  let startedAt = "";
  let lost = false;
  for await (const { event } of runCommand(scope, command, options)) {
    switch (event.type) {
      case "start":
        startedAt = event.timestamp;
        break;
      case "stdout":
      case "stderr": {
        const piece = streams[event.type].add(event);
        if (onOutput && piece.length > 0) await onOutput(event.type, piece);
        break;
      }
      case "truncated":
        lost = true;
        break;
      case "complete": {
        for (const stream of ["stdout", "stderr"] as const) {
          const rest = streams[stream].end();
          if (onOutput && rest.length > 0) await onOutput(stream, rest);
        }
        const result = resultOf(command, startedAt, event.result, streams, lost);
        options.onComplete?.(result);
        return result;
      }
      case "caught-up": // of logs that are not followed
      case "error": // thrown by the transport
    }
  }
  throw new SandboxError("INTERNAL_ERROR", "Cannot tell how the command ended: its events stopped without an end");
}

function limitOf(maxBuffer: number | undefined, byDefault: number): number {
  if (maxBuffer === undefined) return byDefault;
  if (Number.isSafeInteger(maxBuffer) && maxBuffer >= 0) return maxBuffer;
  throw new SandboxError("VALIDATION_FAILED", `Cannot keep ${maxBuffer} bytes of output: maxBuffer is a whole number`);
}

function resultOf<T>(
  command: Command,
  timestamp: string,
  end: ExecEnd,
  streams: { stdout: Output<T>; stderr: Output<T> },
  lost: boolean,
): ExecResult<T> {
  const truncated = lost || streams.stdout.truncated() || streams.stderr.truncated();
  return {
    success: end.success,
    exitCode: end.exitCode,
    stdout: streams.stdout.value(),
    stderr: streams.stderr.value(),
    command: shown(command),
    duration: end.durationMs,
    timestamp,
    cpuTime: end.cpuTimeMs,
    ...(end.signal !== undefined && { signal: end.signal }),
    ...(end.reason !== undefined && { reason: end.reason }),
    ...(end.reason === "timeout" && { timedOut: true }),
    ...(truncated && { truncated: true }),
    ...(end.stateSaved !== undefined && { stateSaved: end.stateSaved }),
    ...(end.sessionId !== undefined && { sessionId: end.sessionId }),
  };
}

/**
 * The command's ExecEvents as a stream of server-sent events. Resolves when the command has begun, so that what keeps it
 * from beginning is thrown here; what happens later is the stream's last event.
 */
export async function execStream(
  scope: Scope,
  command: Command,
  options: ExecOptions,
): Promise<ReadableStream<Uint8Array>> {
  if (options.encoding === "buffer") {
    throw new SandboxError("VALIDATION_FAILED", 'Cannot stream with encoding "buffer": events are text', {
      suggestion: "Leave it out: events carry exact bytes in base64 where they are no text",
    });
  }
  const events = execEvents(scope, command, options);
  const first = await events.next();
  async function* all(): AsyncGenerator<string> {
    try {
      if (!first.done) yield first.value;
      yield* events;
    } finally {
      await events.return(undefined);
    }
  }
  return streamOf(withKeepAlive(all()));
}

/** The same as a Response that an app can return as it is. */
export async function execResponse(scope: Scope, command: Command, options: ExecOptions): Promise<Response> {
  return new Response((await execStream(scope, command, options)) as ReadableStream<Uint8Array<ArrayBuffer>>, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache" },
  });
}

async function* execEvents(scope: Scope, command: Command, options: ExecOptions): AsyncGenerator<string> {
  const maxBuffer = limitOf(options.maxBuffer, defaultMaxBufferOfStreams);
  const streams = { stdout: textOutput(maxBuffer), stderr: textOutput(maxBuffer) };
  const resumed = fromPublicId(options.lastEventId);
  let process = resumed?.process ?? "";
  const encode = (id: string | undefined, event: ExecEvent) =>
    encodeEvent({ ...(id !== undefined && { id: toPublicId(process, id) }), data: JSON.stringify(event) });
  let startedAt = "";
  let lost = resumed !== undefined;
  try {
    for await (const { id, event } of runCommand(scope, command, options, resumed)) {
      const { type, timestamp } = event;
      switch (type) {
        case "start": {
          startedAt = timestamp;
          process = event.processId;
          if (resumed) break; // its reader has that
          const { pid, sessionId } = event;
          yield encode(id, {
            type,
            timestamp,
            pid,
            command: shown(command),
            ...(sessionId !== undefined && { sessionId }),
          });
          break;
        }
        case "stdout":
        case "stderr":
          yield encode(id, {
            type,
            timestamp,
            data: streams[type].add(event),
            ...(event.bytes && { bytes: event.bytes }),
          });
          break;
        case "truncated":
          lost = true;
          break;
        case "complete": {
          for (const stream of ["stdout", "stderr"] as const) {
            const rest = streams[stream].end();
            if (rest !== "") yield encode(undefined, { type: stream, timestamp, data: rest, bytes: "" });
          }
          const result = resultOf(command, startedAt, event.result, streams, lost);
          yield encode(id, { type, timestamp, exitCode: event.exitCode, result });
          break;
        }
        case "caught-up": // of logs that are not followed
        case "error": // thrown by the transport
      }
    }
  } catch (error) {
    if (startedAt === "") throw error;
    const words = error instanceof Error ? error.message : String(error);
    yield encode(undefined, { type: "error", timestamp: new Date().toISOString(), error: words });
  }
}
