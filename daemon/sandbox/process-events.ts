import type { ProcessEnd } from "../../protocol/agent.ts";
import type { ExecEnd, ProcessEvent } from "../../protocol/process.ts";
import type { LogEntry } from "../link/log.ts";
import { isoTime } from "./iso-time.ts";

/** An event and the id behind it. */
export type NumberedEvent = { id: string; event: ProcessEvent };

/** How far somebody has read: the run, the log's offset, and in the background which life of the process it was. */
export type Place = { run: number; offset: number; life?: number };

export function eventId({ run, offset, life }: Place): string {
  return life === undefined ? `${run}-${offset}` : `${run}-${offset}-${life}`;
}

/** The place that an event id names; undefined when it is none. */
export function parseEventId(id: string): Place | undefined {
  const match = /^(\d{1,15})-(\d{1,15})(?:-(\d{1,15}))?$/.exec(id);
  if (!match) return undefined;
  const [, run, offset, life] = match;
  return { run: Number(run), offset: Number(offset), ...(life !== undefined && { life: Number(life) }) };
}

/** Tells a process from one that got its id later. An agent may say any number. */
export function lifeOf(startedAtMs: number): number {
  return Math.abs(Math.trunc(startedAtMs)) % 1e15 || 0;
}

/** What the events of one process have in common. */
export type About = { run: number; processId: string; sessionId?: string | undefined; background: boolean };

/**
 * A process's log as public events. Text is cut at UTF-8 borders: an unfinished character waits for its rest; what is no
 * UTF-8, or has to go because the other stream speaks, carries its exact bytes in base64 beside the replaced text.
 */
export async function* toEvents(
  log: AsyncIterable<LogEntry>,
  about: About,
): AsyncGenerator<NumberedEvent, void, undefined> {
  let held: { stream: "stdout" | "stderr"; bytes: Uint8Array; after: number } | undefined;
  const { run } = about;
  let life: Pick<Place, "life"> = {};
  let at = 0;
  const numbered = (offset: number, event: ProcessEvent): NumberedEvent => ({
    id: eventId({ run, offset, ...life }),
    event,
  });
  const session = about.sessionId === undefined ? {} : { sessionId: about.sessionId };
  for await (const entry of log) {
    if (held && !(entry.type === "output" && entry.stream === held.stream)) {
      yield numbered(held.after, outputEvent(held.stream, held.bytes));
      held = undefined;
    }
    at = entry.after;
    switch (entry.type) {
      case "started": {
        const { pid, startedAtMs } = entry.started;
        const timestamp = isoTime(startedAtMs);
        if (about.background) life = { life: lifeOf(startedAtMs) };
        yield numbered(entry.after, { type: "start", timestamp, pid, processId: about.processId, run, ...session });
        break;
      }
      case "output": {
        const bytes: Uint8Array = held ? Buffer.concat([held.bytes, entry.bytes]) : entry.bytes;
        const whole = bytes.length - unfinishedTail(bytes);
        held =
          whole < bytes.length ? { stream: entry.stream, bytes: bytes.slice(whole), after: entry.after } : undefined;
        const after = entry.after - (bytes.length - whole);
        if (whole > 0) yield numbered(after, outputEvent(entry.stream, bytes.subarray(0, whole)));
        break;
      }
      case "truncated":
        yield numbered(entry.after, { type: "truncated", timestamp: now(), ...entry.gap });
        break;
      case "ended": {
        const result = execEnd(entry.end, session);
        const timestamp = isoTime(entry.end.endedAtMs);
        yield numbered(entry.after, { type: "complete", timestamp, exitCode: result.exitCode, result });
        return;
      }
    }
  }
  const offset = held ? held.after - held.bytes.length : at; // what is begun is read whole the next time
  yield numbered(offset, { type: "caught-up", timestamp: now(), offset });
}

export function execEnd(end: ProcessEnd, session: { sessionId?: string }): ExecEnd {
  return { ...end, success: end.exitCode === 0, ...session };
}

const exact = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });

function outputEvent(stream: "stdout" | "stderr", bytes: Uint8Array): ProcessEvent {
  try {
    return { type: stream, timestamp: now(), data: exact.decode(bytes) };
  } catch {
    // not UTF-8: a program may print anything
    return {
      type: stream,
      timestamp: now(),
      data: lenient.decode(bytes),
      bytes: Buffer.from(bytes).toString("base64"),
    };
  }
}

/** Bytes at the end that begin a UTF-8 character without finishing it: 0 to 3. */
function unfinishedTail(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0b1100_0000) === 0b1000_0000) continue;
    const needed = byte >= 0b1111_0000 ? 4 : byte >= 0b1110_0000 ? 3 : byte >= 0b1100_0000 ? 2 : 1;
    return needed > back ? back : 0;
  }
  return 0;
}

function now(): string {
  return new Date().toISOString();
}
