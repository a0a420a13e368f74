import { SandboxError } from "../protocol/errors.ts";
import { textOutput, type Output, type Piece } from "./output.ts";
import type { LogMatch } from "./process-types.ts";

type Stream = "stdout" | "stderr";

/** Looks for a line in output that comes in pieces. */
export type LineFinder = {
  /** Takes a piece; gives the first line in it that fits. */
  add(stream: Stream, piece: Piece): LogMatch | undefined;
  /** Whether a line has begun that may be all of it: a prompt, or a server's last word. */
  hasOpen(): boolean;
  /** Looks at lines without an end as they are. */
  lookAtOpen(): LogMatch | undefined;
  /** Bytes are missing here: what follows is no part of the line before. */
  gap(): void;
  /** The last lines that came. */
  lastLines(): string[];
};

/** A longer line is looked at in its last part. */
const lineLimitChars = 64 * 1024;

/** Enough to see why a server did not come up. */
const lastLinesLimit = 10;
const lastLineChars = 500;

/** Throws VALIDATION_FAILED for a text that no line can contain. */
export function findLine(pattern: string | RegExp): LineFinder {
  const fits = matcher(pattern);
  const streams = { stdout: { decoded: decoder(), open: "" }, stderr: { decoded: decoder(), open: "" } };
  let last: string[] = [];
  let looked = true;

  function keep(line: string): void {
    if (line === "") return;
    last = [...last, line.slice(0, lastLineChars)].slice(-lastLinesLimit);
  }
  function open(): string[] {
    return [streams.stdout.open, streams.stderr.open].filter((line) => line !== "");
  }
  return {
    add(name, piece) {
      const stream = streams[name];
      const lines = (stream.open + stream.decoded.add(piece)).split("\n");
      stream.open = (lines.pop() ?? "").slice(-lineLimitChars);
      looked = false;
      let found: LogMatch | undefined;
      for (const ended of lines) {
        const line = ended.endsWith("\r") ? ended.slice(0, -1) : ended;
        keep(line);
        found ??= fits(line);
      }
      return found;
    },
    hasOpen: () => !looked && open().length > 0,
    lookAtOpen() {
      looked = true;
      for (const line of open()) {
        const found = fits(line);
        if (found) return found;
      }
      return undefined;
    },
    gap() {
      for (const stream of Object.values(streams)) {
        stream.decoded = decoder();
        stream.open = "";
      }
    },
    lastLines: () => [...last, ...open().map((line) => line.slice(0, lastLineChars))].slice(-lastLinesLimit),
  };
}

/** Decodes, and keeps nothing. */
function decoder(): Output<string> {
  return textOutput(0);
}

/** What a terminal would take for colours and movements. */
const escapes = /\x1b\[[0-9;?]*[ -/]*[@-~]/g;

function matcher(pattern: string | RegExp): (line: string) => LogMatch | undefined {
  const plain = (line: string) => (line.includes("\x1b") ? line.replace(escapes, "") : line);
  if (typeof pattern === "string") {
    if (pattern.includes("\n"))
      throw new SandboxError(
        "VALIDATION_FAILED",
        "Cannot wait for a text with a line break: it is looked for line by line",
      );
    return (line) => {
      if (line.includes(pattern)) return { line };
      return plain(line).includes(pattern) ? { line: plain(line) } : undefined;
    };
  }
  // g and y make an expression remember where it was
  const expression = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ""));
  return (line) => {
    for (const text of new Set([line, plain(line)])) {
      const match = text.match(expression);
      if (match) return { line: text, match };
    }
    return undefined;
  };
}
