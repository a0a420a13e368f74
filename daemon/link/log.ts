import type { Readable } from "node:stream";
import { ProcessEnd, ProcessStarted, Truncated } from "../../protocol/agent.ts";
import { ErrorBody, SandboxError } from "../../protocol/errors.ts";
import { decodeFrames, frameKinds } from "../../protocol/frame.ts";
import { unreachable } from "./connect.ts";
import { parseAnswer } from "./link.ts";

/** What a process's log holds, in order. `after` is the log's offset behind the entry. */
export type LogEntry =
  | { type: "started"; started: ProcessStarted; after: number }
  | { type: "output"; stream: "stdout" | "stderr"; bytes: Uint8Array; after: number }
  | { type: "truncated"; gap: Truncated; after: number }
  | { type: "ended"; end: ProcessEnd; after: number };

/**
 * A process's log as it comes from an agent, checked: offsets only go forward and without holes but those told, nothing
 * follows the end. Throws AGENT_UNREACHABLE when it is cut off or makes no sense, or the error that the agent sent.
 * `before` is the offset that was asked for.
 */
export async function* readLog(response: Readable, before: number): AsyncGenerator<LogEntry, void, undefined> {
  let offset = before;
  const decoder = new TextDecoder();
  let ended = false;
  const read = <T>(schema: { parse: (value: unknown) => T }, payload: Uint8Array) =>
    parseAnswer(schema as never, decoder.decode(payload)) as T;
  try {
    for await (const frame of decodeFrames(unlessSilent<Uint8Array>(response, "log"))) {
      switch (frame.kind) {
        case frameKinds.stdout:
        case frameKinds.stderr: {
          if (frame.offset !== offset) throw unreachable(`its log jumps from ${offset} to ${frame.offset}`);
          offset += frame.payload.length;
          const stream = frame.kind === frameKinds.stdout ? "stdout" : "stderr";
          yield { type: "output", stream, bytes: frame.payload, after: offset };
          break;
        }
        case frameKinds.started:
          yield { type: "started", started: read(ProcessStarted, frame.payload), after: offset };
          break;
        case frameKinds.truncated: {
          const gap = read(Truncated, frame.payload);
          if (gap.from !== offset || gap.to <= gap.from) throw unreachable("its log has a gap that goes backwards");
          offset = gap.to;
          yield { type: "truncated", gap, after: offset };
          break;
        }
        case frameKinds.ended:
          ended = true;
          yield { type: "ended", end: read(ProcessEnd, frame.payload), after: offset };
          return;
        case frameKinds.error:
          throw SandboxError.from(read(ErrorBody, frame.payload));
        case frameKinds.heartbeat:
          break;
      }
    }
  } catch (error) {
    if (SandboxError.is(error)) throw error;
    throw unreachable(error instanceof RangeError ? error.message : "its log was cut off", error);
  } finally {
    if (ended) release(response);
    else response.destroy();
  }
}

/** A log or a watch beats every 15 s; three missed beats and it counts as lost. */
const silenceLimitMs = 50_000;

/** What comes. Throws AGENT_UNREACHABLE, with `what` in its words, after a silence. What the caller does meanwhile is none. */
export async function* unlessSilent<T>(response: Readable, what: string): AsyncGenerator<T, void, undefined> {
  const chunks = response.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]();
  for (;;) {
    const timer = setTimeout(() => response.destroy(unreachable(`its ${what} fell silent`)), silenceLimitMs);
    const { done, value } = await chunks.next().finally(() => clearTimeout(timer));
    if (done) return;
    yield value as T;
  }
}

/** Nothing follows the end but the end of the answer: its connection can be used again, if it comes at once. */
function release(response: Readable): void {
  const timer = setTimeout(() => response.destroy(), 1_000).unref();
  response.once("close", () => clearTimeout(timer));
  response.resume();
}
