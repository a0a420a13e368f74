/**
 * A process's log on the link and in the agent's memory: frames of a 16-byte header and a payload.
 *
 *   u8 kind, 3 x u8 zero, u32le payload length, u64le offset
 *
 * `offset` counts the payload bytes of both output streams: of an output frame it is that of its first byte, of any
 * other frame the number so far.
 */
export const frameKinds = {
  stdout: 1,
  stderr: 2,
  /** JSON ProcessStarted; always first. */
  started: 16,
  /** JSON ProcessEnd; always last. */
  ended: 17,
  /** JSON Truncated. */
  truncated: 18,
  /** Empty; sent when nothing was for 15 s. */
  heartbeat: 19,
  /** JSON ErrorBody; last where there is no `ended`. */
  error: 20,
} as const;

export type FrameKind = (typeof frameKinds)[keyof typeof frameKinds];

/** What goes to the agent, for a terminal: bytes for it to read, and JSON TerminalSize. */
export const inputKinds = { input: 32, resize: 33 } as const;

export type InputKind = (typeof inputKinds)[keyof typeof inputKinds];

export const frameHeaderBytes = 16;

/** The agent cuts output at 256 KiB and JSON is small; a longer frame is a lie. */
export const framePayloadLimitBytes = 1024 * 1024;

export type Frame = { kind: FrameKind; offset: number; payload: Uint8Array };

const kinds: ReadonlySet<number> = new Set(Object.values(frameKinds));

/** The frames of a byte stream. Throws RangeError at an unknown kind, an impossible length or offset, or a cut-off end. */
export async function* decodeFrames(source: AsyncIterable<Uint8Array>): AsyncGenerator<Frame, void, undefined> {
  let rest: Uint8Array = new Uint8Array(0);
  for await (const chunk of source) {
    let bytes = rest.length === 0 ? chunk : join(rest, chunk);
    for (;;) {
      const frame = firstFrame(bytes);
      if (!frame) break;
      bytes = bytes.subarray(frameHeaderBytes + frame.payload.length);
      yield frame;
    }
    rest = bytes;
  }
  if (rest.length > 0) throw new RangeError("Cannot read the log: it ends in the middle of a frame");
}

/** The first whole frame of `bytes`, or undefined while more are needed. The payload is a view, not a copy. */
function firstFrame(bytes: Uint8Array): Frame | undefined {
  if (bytes.length < frameHeaderBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, frameHeaderBytes);
  const kind = view.getUint8(0);
  const length = view.getUint32(4, true);
  const offset = Number(view.getBigUint64(8, true));
  if (!kinds.has(kind)) throw new RangeError(`Cannot read the log: unknown frame kind ${kind}`);
  if (length > framePayloadLimitBytes) throw new RangeError(`Cannot read the log: a frame of ${length} bytes`);
  if (!Number.isSafeInteger(offset)) throw new RangeError("Cannot read the log: an impossible offset");
  if (bytes.length < frameHeaderBytes + length) return undefined;
  return { kind: kind as FrameKind, offset, payload: bytes.subarray(frameHeaderBytes, frameHeaderBytes + length) };
}

function join(first: Uint8Array, second: Uint8Array): Uint8Array {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

/** One frame as bytes. */
export function encodeFrame(kind: FrameKind | InputKind, offset: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, kind);
  view.setUint32(4, payload.length, true);
  view.setBigUint64(8, BigInt(offset), true);
  bytes.set(payload, frameHeaderBytes);
  return bytes;
}
