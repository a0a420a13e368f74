import { createHold } from "./hold.ts";
import { isRequestLine } from "./http-head.ts";
import { createHttpReader } from "./http-requests.ts";
import { beginsTls, createTlsReader } from "./tls-hello.ts";

export type Protocol = "http" | "tls" | "other";

/** What a reader says of the bytes before it, which it is given from the same beginning until it lets some pass. */
export type Finding =
  | { kind: "more" }
  /** The first so many are good. `then`: what follows is judged afresh, or not at all. */
  | { kind: "pass"; bytes: number; then?: "start" | "raw" }
  | { kind: "refuse"; why: string };

/** What to do with the bytes a sandbox sent: what goes on to the server now, or why the connection must end. */
export type Step = { forward: Buffer; refusal?: string };

export type Inspector = {
  /** Undefined as long as it is not clear. */
  readonly protocol: Protocol | undefined;
  /** Whether nothing has to be looked at any more. */
  readonly done: boolean;
  /** Bytes that wait for more. */
  readonly heldBytes: number;
  take(chunk: Buffer): Step;
  /** Gives out what is held, and goes on judging: for clients that wait for an answer to half a line. */
  release(): Buffer;
};

/**
 * Watches what a sandbox sends on a connection to `host`, and sees to it that a Host header or a server name in TLS says
 * the same. Bytes whose meaning is not clear yet are held, at most 64 KiB; of a first line that is longer only the end is
 * looked at. What the server sends is nobody's business here, so protocols in which the server speaks first work.
 *
 * Every request of an HTTP/1 connection is read, because a later one may name another host. HTTP/2 without TLS hides its
 * names in a compression of its own and is refused, unless the server is `trusted`. What is neither HTTP nor TLS passes.
 */
export function createInspector(host: string, trusted: boolean): Inspector {
  const hold = createHold();
  let recognize = createRecognizer();
  let protocol: Protocol | undefined;
  let read: ((bytes: Buffer) => Finding) | undefined;

  const begin = (bytes: Buffer): Finding | undefined => {
    const found = recognize(bytes);
    if (found === "http2" && !trusted)
      return { kind: "refuse", why: "it is HTTP/2 without TLS, whose names cannot be read" };
    if (found !== undefined) protocol = found === "http2" ? "other" : found;
    if (found === "http") read = createHttpReader(host);
    else if (found === "tls") read = createTlsReader(host);
    else if (found !== undefined) read = passAll;
    return read ? undefined : { kind: "more" };
  };

  return {
    get protocol() {
      return protocol;
    },
    get done() {
      return read === passAll;
    },
    get heldBytes() {
      return hold.size;
    },
    release: () => hold.release(),
    take: (chunk) => {
      hold.add(chunk);
      // Given out as one piece: 64 KiB may be 30,000 good parts, and each one would be a write, or wait as an object of its own.
      let good = 0;
      for (let rest = hold.bytes; rest.length > 0;) {
        const finding: Finding | undefined = read ? read(rest) : begin(rest);
        if (!finding) continue;
        if (finding.kind === "refuse") return { forward: nothing, refusal: finding.why };
        if (finding.kind === "more") break;
        good += finding.bytes;
        rest = rest.subarray(finding.bytes);
        if (finding.then === "raw") read = passAll;
        if (finding.then !== "start") continue;
        read = undefined;
        recognize = createRecognizer();
      }
      if (hold.size - good <= holdLimitBytes) return { forward: hold.take(good) };
      if (read) return { forward: nothing, refusal: "it begins with something that does not end" };
      protocol = "other";
      read = createLongLineReader();
      const finding = read(hold.bytes.subarray(good));
      return finding.kind === "pass"
        ? { forward: hold.take(good + finding.bytes) }
        : { forward: nothing, refusal: longLine };
    },
  };
}

const nothing = Buffer.alloc(0);

function passAll(bytes: Buffer): Finding {
  return { kind: "pass", bytes: bytes.length };
}

/** Request heads are refused by servers far below this, and hellos are a few KiB. */
const holdLimitBytes = 64 * 1024;

/**
 * Says what a stream begins with; undefined: too early. It is given the whole beginning each time and looks at no byte
 * twice. A line that may still become a request line is waited for, also after empty lines and blanks, which servers skip.
 */
function createRecognizer(): (bytes: Buffer) => Protocol | "http2" | undefined {
  let at = 0;
  let lineStart = 0;
  let spaced = false;
  return (bytes) => {
    const isTls = beginsTls(bytes);
    if (isTls !== false) return isTls ? "tls" : undefined;
    for (; at < bytes.length; at++) {
      const byte = bytes[at]!;
      if (byte === lf && at > lineStart) return nameLine(bytes.toString("latin1", lineStart, at));
      if (at === lineStart && isSpace(byte)) lineStart = at + 1;
      else if (spaced || isTokenByte(byte)) continue;
      else if (at > lineStart && isSpace(byte)) spaced = true;
      else return "other";
    }
    return undefined;
  };
}

/** Passes a first line that is too long to be held, unless it turns out to be a request after all. */
function createLongLineReader(): (bytes: Buffer) => Finding {
  let tail = "";
  return (bytes) => {
    const end = bytes.indexOf(lf);
    const length = end < 0 ? bytes.length : end;
    tail = (tail + bytes.toString("latin1", Math.max(0, length - tailBytes), length)).slice(-tailBytes);
    if (end < 0) return { kind: "pass", bytes: bytes.length };
    if (/HTTP\/\d|^\s+$/i.test(tail)) return { kind: "refuse", why: longLine };
    return { kind: "pass", bytes: bytes.length, then: "raw" };
  };
}

const longLine = "its request line does not end";
/** "HTTP/1.1" with some white space behind it. */
const tailBytes = 64;

function nameLine(line: string): Protocol | "http2" {
  if (!isRequestLine(line)) return "other";
  return /\sHTTP\/[01]\.\d\s*$/i.test(line) ? "http" : "http2";
}

function isTokenByte(byte: number): boolean {
  return byte > 0x20 && byte < 0x7f && !separators.has(byte);
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

const lf = 0x0a;
const separators = new Set(Buffer.from('"(),/:;<=>?@[\\]{}'));
