import { SandboxError } from "../protocol/errors.ts";
import { encodeEvent } from "../protocol/event-stream.ts";
import { offsetOfEvent, type ProcessEvent } from "../protocol/process.ts";
import { base64ToBytes, bytesToBase64, textToBytes } from "./bytes.ts";
import type { CallOf } from "./call.ts";
import { streamOf, withKeepAlive } from "./events.ts";
import type { Arrived } from "./follow-events.ts";
import { textOutput } from "./output.ts";
import type { LogEvent, LogRange, ProcessLogs } from "./process-types.ts";
import type { Scope } from "./scope.ts";

/** The longest character of UTF-8: with less room than that a reader would not get on. */
const smallestRead = 4;

/** What a process has printed so far. Contract: SessionMethods.getProcessLogs. `run`: that of a handle. */
export async function readLogs(scope: Scope, id: string, range: LogRange, run?: number): Promise<ProcessLogs> {
  const { after = 0, maxBytes = Infinity } = range;
  if (!(maxBytes >= smallestRead)) {
    throw new SandboxError(
      "VALIDATION_FAILED",
      `Cannot read ${maxBytes} bytes of a log: ${smallestRead} are the least`,
    );
  }
  const streams = { stdout: textOutput(Infinity), stderr: textOutput(Infinity) };
  let offset = after;
  let left = maxBytes;
  let truncated = false;
  const query = { follow: "false" as const, after, ...(run !== undefined && { run }) };
  const call: CallOf<"followProcess"> = { params: { sandbox: scope.sandbox, process: id }, query };
  for await (const { id: place, event } of scope.transport.events("followProcess", call)) {
    if (event.type === "truncated") truncated = true;
    if (event.type === "stdout" || event.type === "stderr") {
      const bytes = event.bytes === undefined ? textToBytes(event.data) : base64ToBytes(event.bytes);
      const taken = bytes.length <= left ? bytes : wholePart(bytes, left, event.bytes === undefined);
      streams[event.type].add(
        taken === bytes ? event : { data: new TextDecoder().decode(taken), bytes: bytesToBase64(taken) },
      );
      offset = (offsetOfEvent(place) ?? offset + bytes.length) - bytes.length + taken.length;
      left -= taken.length;
      if (taken !== bytes) break;
      continue;
    }
    offset = offsetOfEvent(place) ?? offset;
  }
  for (const stream of Object.values(streams)) stream.end();
  const { stdout, stderr } = streams;
  return {
    processId: id,
    stdout: stdout.value(),
    stderr: stderr.value(),
    offset,
    ...(truncated && { truncated }),
  };
}

/** As many of the bytes as there is room for; of text no half characters. */
function wholePart(bytes: Uint8Array<ArrayBuffer>, room: number, isText: boolean): Uint8Array<ArrayBuffer> {
  let length = room;
  while (isText && length > 0 && ((bytes[length] ?? 0) & 0b1100_0000) === 0b1000_0000) length--;
  return bytes.slice(0, length);
}

/** The LogEvents of a process. Contract: SessionMethods.streamProcessLogs. */
export async function streamLogs(
  scope: Scope,
  id: string,
  { signal, after }: { signal?: AbortSignal | undefined; after?: number | undefined },
): Promise<ReadableStream<Uint8Array>> {
  const query = after === undefined ? {} : { after };
  const call: CallOf<"followProcess"> = { params: { sandbox: scope.sandbox, process: id }, query };
  const events = scope.transport.events("followProcess", call, { signal });
  await events.next(); // the start: what keeps it from being read is thrown here
  return streamOf(withKeepAlive(encoded(id, events)), signal);
}

async function* encoded(id: string, events: AsyncGenerator<Arrived<ProcessEvent>>): AsyncGenerator<string> {
  try {
    for await (const arrived of events) {
      const event = toLogEvent(id, arrived);
      if (event) yield encodeEvent({ data: JSON.stringify(event) });
    }
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    const event: LogEvent = { type: "error", timestamp: new Date().toISOString(), processId: id, data: words };
    yield encodeEvent({ data: JSON.stringify(event) });
  } finally {
    await events.return(undefined);
  }
}

function toLogEvent(processId: string, { id, event }: Arrived<ProcessEvent>): LogEvent | undefined {
  const { timestamp } = event;
  const offset = offsetOfEvent(id);
  const about = { timestamp, processId, ...(offset !== undefined && { offset }) };
  switch (event.type) {
    case "stdout":
    case "stderr":
      return { type: event.type, ...about, data: event.data, ...(event.bytes !== undefined && { bytes: event.bytes }) };
    case "truncated":
      return { type: "truncated", ...about, data: "" };
    case "complete": {
      const { exitCode, signal } = event.result;
      return { type: "exit", ...about, data: "", exitCode, ...(signal !== undefined && { signal }) };
    }
    case "start": // told again after a loss
    case "caught-up":
    case "error": // thrown by the transport
      return undefined;
  }
}
