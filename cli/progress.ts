import { size } from "./output.ts";

export type Progress = Disposable & {
  /** Bytes that have gone through since the last call. */
  add(bytes: number): void;
  /** How many bytes there will be, once that is known. */
  expect(bytes: number): void;
  bytes(): number;
};

type Screen = { isTTY?: boolean; columns?: number; write(text: string): unknown };

/** What is quicker needs no bar, and a bar that flashes up disturbs. */
const showAfterMs = 300;

/** Ten times a second looks continuous. */
const drawEveryMs = 100;

const clearLine = "\r\u001b[K";

/** A progress bar on standard error, if that is a terminal; disposing it takes it away. */
export function startProgress(verb: string, screen: Screen = process.stderr, now = () => performance.now()): Progress {
  const began = now();
  let done = 0;
  let expected = 0;
  let drawn = -Infinity;
  return {
    add(bytes) {
      done += bytes;
      if (!screen.isTTY || now() - began < showAfterMs || now() - drawn < drawEveryMs) return;
      drawn = now();
      screen.write(clearLine + bar(verb, done, expected, now() - began, screen.columns ?? 80));
    },
    expect(bytes) {
      expected = bytes;
    },
    bytes: () => done,
    [Symbol.dispose]() {
      if (drawn > 0) screen.write(clearLine);
    },
  };
}

/** One line of at most `columns`: "copied 12 MB of 40 MB, 30 MB/s  ########........  30 %". */
export function bar(verb: string, done: number, expected: number, elapsedMs: number, columns: number): string {
  const rate = `${size(Math.round((done / Math.max(elapsedMs, 1)) * 1_000))}/s`;
  if (expected === 0) return `${verb} ${size(done)}, ${rate}`.slice(0, columns);
  const share = Math.min(done / expected, 1);
  const words = `${verb} ${size(done)} of ${size(expected)}, ${rate}`;
  const percent = `${Math.floor(share * 100)} %`;
  const room = Math.min(columns - words.length - percent.length - 5, 40);
  if (room < 5) return `${words}  ${percent}`.slice(0, columns);
  const filled = Math.round(share * room);
  return `${words}  ${"#".repeat(filled)}${".".repeat(room - filled)}  ${percent}`;
}

/** A stream that counts what goes through. */
export function counted(progress: Progress): TransformStream<Uint8Array, Uint8Array> {
  return new TransformStream({
    transform(chunk, controller) {
      progress.add(chunk.length);
      controller.enqueue(chunk);
    },
  });
}
