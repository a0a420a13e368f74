import { SandboxError } from "../protocol/errors.ts";
import { offsetOfEvent } from "../protocol/process.ts";
import { parseSSEStream } from "../sdk/events.ts";
import type { LogEvent, ProcessLogs } from "../sdk/process-types.ts";
import { getSandbox } from "../sdk/sandbox.ts";
import { UsageError } from "./args.ts";
import { connectionOf } from "./daemon.ts";
import { note, printJson, size, write } from "./output.ts";
import type { Call, Run } from "./table.ts";

type Piece = { stream: "stdout" | "stderr"; bytes: Buffer };

export const run: Run<"logs"> = async (call) => {
  const { values } = call;
  const tail = tailOf(values.tail);
  if (values.json) return runJson(call, tail);
  if (tail === undefined) {
    for await (const piece of read(call, { follow: values.follow === true, after: 0 })) await show(piece);
    return 0;
  }
  const { pieces, end } = await lastOf(call, tail);
  for (const piece of pieces) await show(piece);
  if (values.follow) for await (const piece of read(call, { follow: true, after: end })) await show(piece);
  return 0;
};

/** One value of what is there; followed, a value a line of what comes. */
async function runJson(call: Call<"logs">, tail: number | undefined): Promise<number> {
  const { values } = call;
  const [id = "", process = ""] = call.arguments;
  const sandbox = getSandbox(connectionOf(values), id);
  if (values.follow) {
    const after = tail === undefined ? 0 : (await lastOf(call, tail)).start;
    const stream = await sandbox.streamProcessLogs(process, { after });
    for await (const event of parseSSEStream<LogEvent>(stream)) await tellEvent(event);
    return 0;
  }
  if (tail === undefined) {
    printJson(await sandbox.getProcessLogs(process));
    return 0;
  }
  const { pieces, end, truncated } = await lastOf(call, tail);
  const textOf = (stream: Piece["stream"]) =>
    Buffer.concat(pieces.flatMap((piece) => (piece.stream === stream ? [piece.bytes] : []))).toString();
  const logs: ProcessLogs = {
    processId: process,
    stdout: textOf("stdout"),
    stderr: textOf("stderr"),
    offset: end,
    ...(truncated && { truncated }),
  };
  printJson(logs);
  return 0;
}

async function tellEvent(event: LogEvent): Promise<void> {
  await write(process.stdout, Buffer.from(`${JSON.stringify(event)}\n`));
  if (event.type === "error") throw new SandboxError("OPERATION_INTERRUPTED", event.data);
}

type Last = {
  pieces: Piece[];
  /** The offset of the first byte of them, and the one behind the last. */
  start: number;
  end: number;
  /** Whether what was before the oldest that is kept is gone. */
  truncated: boolean;
};

/** The last lines of what is there. */
async function lastOf(call: Call<"logs">, count: number): Promise<Last> {
  const there: Piece[] = [];
  let end = 0;
  let truncated = false;
  const reading: Reading = {
    follow: false,
    after: 0,
    onOffset: (offset) => (end = offset),
    onTruncated: () => {
      truncated = true;
      there.length = 0; // what was read before the gap is not what stands before the end
    },
  };
  for await (const piece of read(call, reading)) there.push(piece);
  const pieces = lastLines(there, count);
  const length = pieces.reduce((sum, { bytes }) => sum + bytes.length, 0);
  return { pieces, start: end - length, end, truncated };
}

type Reading = { follow: boolean; after: number; onOffset?: (offset: number) => void; onTruncated?: () => void };

/** A process's output as it is, in order. */
async function* read({ values, arguments: [sandbox = "", process = ""] }: Call<"logs">, reading: Reading) {
  const query = { follow: reading.follow ? ("true" as const) : ("false" as const), after: reading.after };
  const { transport } = connectionOf(values);
  for await (const { id, event } of transport.events("followProcess", { params: { sandbox, process }, query })) {
    reading.onOffset?.(offsetOfEvent(id) ?? 0);
    if (event.type === "truncated") reading.onTruncated?.();
    if (event.type === "truncated") note(`${size(event.to - event.from)} before this are no longer kept`);
    if (event.type !== "stdout" && event.type !== "stderr") continue;
    const bytes = event.bytes === undefined ? Buffer.from(event.data) : Buffer.from(event.bytes, "base64");
    yield { stream: event.type, bytes };
  }
}

function show({ stream, bytes }: Piece): Promise<void> {
  return write(stream === "stdout" ? process.stdout : process.stderr, bytes);
}

/** The end of what was printed: so many lines of both streams together. */
export function lastLines(pieces: readonly Piece[], count: number): Piece[] {
  const kept: Piece[] = [];
  let left = count;
  for (const piece of pieces.toReversed()) {
    if (left === 0) break;
    if (piece.bytes.length === 0) continue;
    let from = piece.bytes.length;
    // a line break at the very end closes a line, it begins none
    if (kept.length === 0 && piece.bytes[from - 1] === 10) from--;
    while (left > 0 && from > 0) {
      const at = piece.bytes.lastIndexOf(10, from - 1);
      if (at < 0) from = 0;
      else if (--left === 0) return [{ ...piece, bytes: piece.bytes.subarray(at + 1) }, ...kept];
      else from = at;
    }
    kept.unshift(piece);
  }
  return kept;
}

function tailOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new UsageError(`Cannot use --tail ${JSON.stringify(text)}: it is a number of lines`);
}
