import { trimBlanks } from "../../protocol/blanks.ts";
import { SandboxError } from "../../protocol/errors.ts";
import { kindOf, optionsIn } from "./header-kind.ts";

/** What an inner server may say before its body begins, and behind it. Node's own limit for visitors is 16 KiB. */
const headLimit = 64 * 1024;

/** As many interim answers as any server has reason to give; one that gives them for ever has something else in mind. */
const interimLimit = 20;

/** A chunk's size and what is said of it, in all chunks together: Node's own limit. Nobody has a use for it. */
const extensionLimit = 16 * 1024;

export type AnswerHead = {
  status: number;
  message: string;
  /** Name, value, name, value, as they came. */
  headers: string[];
};

type State =
  | { in: "head" }
  | { in: "length"; left: number }
  | { in: "until close" }
  | { in: "chunk size" }
  | { in: "chunk"; left: number }
  | { in: "chunk end" }
  | { in: "trailers" }
  | { in: "end" };

/**
 * Reads one answer of HTTP/1 from whatever a server in a sandbox says. Strict where RFC 9112 leaves a choice: what could be
 * understood in two ways is refused, so that nobody behind us understands the other. Every method throws
 * SERVICE_NOT_RESPONDING for what is no answer; nothing is to be read then any more.
 */
export class AnswerReader {
  /** The final answer's, as soon as it is known. */
  head: AnswerHead | undefined;
  /** What came behind an answer that is complete: after 101 the other protocol's, else nobody's. */
  rest: Buffer = empty;
  readonly #method: string;
  readonly #mayUpgrade: boolean;
  #state: State = { in: "head" };
  /** Bytes of a head, a line or trailers that are not complete yet. */
  readonly #line = new Line();
  #interim = 0;
  #extensionBytes = 0;
  #keepsAlive = false;

  /** `method`: what was asked decides whether there is a body. `mayUpgrade`: 101 is an answer. */
  constructor(method: string, mayUpgrade = false) {
    this.#method = method;
    this.#mayUpgrade = mayUpgrade;
  }

  get isComplete(): boolean {
    return this.#state.in === "end";
  }

  /** Whether another request may follow on this connection. */
  get keepsAlive(): boolean {
    return this.#keepsAlive && this.isComplete && this.rest.length === 0;
  }

  /** Reads on, and gives what of the body has come, in pieces of `chunk` itself. */
  push(chunk: Buffer): readonly Buffer[] {
    const body: Buffer[] = [];
    let at = 0;
    while (at < chunk.length && !this.isComplete) at = this.#step(chunk, at, body);
    if (this.isComplete && at < chunk.length) this.rest = chunk.subarray(at);
    return body;
  }

  /** The server has closed. Throws when more must have come. */
  finish(): void {
    if (this.#state.in === "until close") this.#state = { in: "end" };
    if (!this.isComplete) throw nonsense("it closed the connection without a whole answer");
  }

  /** Reads some of the chunk, and gives where it goes on. */
  #step(chunk: Buffer, at: number, body: Buffer[]): number {
    const state = this.#state;
    switch (state.in) {
      case "head": {
        const end = this.#line.read(chunk, at, "\r\n\r\n", headLimit);
        if (this.#line.text !== undefined) this.#readHead(this.#line.text);
        return end;
      }
      case "length":
      case "chunk": {
        const part = chunk.subarray(at, at + state.left);
        body.push(part);
        state.left -= part.length;
        if (state.left === 0) this.#state = { in: state.in === "chunk" ? "chunk end" : "end" };
        return at + part.length;
      }
      case "until close":
        body.push(at === 0 ? chunk : chunk.subarray(at));
        return chunk.length;
      case "chunk size": {
        const end = this.#line.read(chunk, at, "\r\n", extensionLimit);
        if (this.#line.text !== undefined) this.#readChunkSize(this.#line.text);
        return end;
      }
      case "chunk end": {
        const end = this.#line.read(chunk, at, "\r\n", 0);
        if (this.#line.text !== undefined) this.#state = { in: "chunk size" };
        return end;
      }
      case "trailers": {
        // the size's own line end begins the empty line when there are none
        const end = this.#line.read(chunk, at, "\r\n\r\n", headLimit);
        if (this.#line.text !== undefined) this.#state = { in: "end" };
        return end;
      }
      case "end":
        return at;
    }
  }

  #readHead(text: string): void {
    const head = parseHead(text);
    const { status } = head;
    if (status < 200 && !(status === 101 && this.#mayUpgrade)) {
      if (status === 101) throw nonsense("it changes the protocol without being asked");
      if (++this.#interim > interimLimit) {
        throw nonsense("it announces an answer again and again without giving it");
      }
      return;
    }
    this.head = head;
    const { state, keepsAlive } = readFraming(head, this.#method);
    this.#state = state;
    this.#keepsAlive = keepsAlive;
  }

  #readChunkSize(line: string): void {
    const [, digits = "", extension = ""] = /^([0-9a-fA-F]{1,12})[ \t]*(;.*)?$/.exec(line) ?? [];
    if (digits === "" || controls.test(extension)) throw nonsense("a chunk of its answer has no size");
    this.#extensionBytes += extension.length;
    if (this.#extensionBytes > extensionLimit) throw nonsense("it says more of its chunks than there is to say");
    const left = Number.parseInt(digits, 16);
    this.#state = left > 0 ? { in: "chunk", left } : { in: "trailers" };
    if (left === 0) this.#line.begin("\r\n");
  }
}

const empty: Buffer = Buffer.alloc(0);

/** What is no octet of a line of text, by RFC 9110 5.5. */
const controls = /[\0-\x08\x0a-\x1f\x7f]/;

/** The same of a head, whose lines end with CR LF and with nothing less. */
const controlsInHead = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n/;

/** A head, and what it says of its framing. */
type FramedHead = AnswerHead & { minor: string; lengths: string[]; encodings: string[]; options: string };

function parseHead(text: string): FramedHead {
  let end = text.indexOf("\r\n");
  const [, minor = "", status = "", message = ""] =
    /^HTTP\/1\.([01]) ([1-9]\d\d)(?: (.*))?$/.exec(end < 0 ? text : text.slice(0, end)) ?? [];
  if (status === "" || controlsInHead.test(text)) throw nonsense("its answer is no HTTP/1");
  const headers: string[] = [];
  const lengths: string[] = [];
  const encodings: string[] = [];
  let options = "";
  while (end >= 0) {
    const from = end + 2;
    end = text.indexOf("\r\n", from);
    const lineEnd = end < 0 ? text.length : end;
    const colon = text.indexOf(":", from);
    // a line that begins with a space is one of no name: what it goes on with could be read in two ways
    const name = colon < 0 || colon > lineEnd ? "" : text.slice(from, colon);
    const kind = kindOf(name);
    if (kind === "invalid") throw nonsense("a header of its answer is none");
    const value = trimBlanks(text, colon + 1, lineEnd);
    if (kind === "content-length") lengths.push(value);
    else if (kind === "transfer-encoding") encodings.push(value);
    else if (kind === "connection") options += `,${value}`;
    headers.push(name, value);
  }
  return { status: Number(status), message, headers, minor, lengths, encodings, options };
}

/** How long the body is, by RFC 9112 6.3. */
function readFraming(head: FramedHead, method: string): { state: State; keepsAlive: boolean } {
  const { status, minor, lengths, encodings, options } = head;
  if (lengths.length > 1 || (lengths.length > 0 && encodings.length > 0)) {
    throw nonsense("its answer has two lengths");
  }
  const said = optionsIn(options);
  const keepsAlive = !said.includes("close") && (minor === "1" || said.includes("keep-alive"));
  if (lengths[0] !== undefined && !/^\d{1,15}$/.test(lengths[0]))
    throw nonsense("its answer has a length that is none");
  if (encodings.length > 0) {
    if (minor === "0" || encodings.length > 1 || encodings[0]!.toLowerCase() !== "chunked") {
      throw nonsense("its answer has a transfer encoding that nobody asked for");
    }
  }
  if (method === "HEAD" || status < 200 || status === 204 || status === 304)
    return { state: { in: "end" }, keepsAlive };
  if (encodings.length > 0) return { state: { in: "chunk size" }, keepsAlive };
  const left = Number(lengths[0] ?? 0);
  if (left > 0) return { state: { in: "length", left }, keepsAlive };
  if (lengths.length > 0) return { state: { in: "end" }, keepsAlive };
  return { state: { in: "until close" }, keepsAlive: false };
}

/** Text up to an end that may come in pieces of any size, in time that grows with their sum. */
class Line {
  /** What was read, without its end; undefined until that has come. */
  text: string | undefined;
  #bytes: Buffer = empty;
  #length = 0;

  /** As if this had come already. */
  begin(text: string): void {
    this.#keep(Buffer.from(text, "latin1"), 0);
  }

  /** Reads the chunk from `at`, and gives where it goes on. Throws when no end comes within the limit. */
  read(chunk: Buffer, at: number, end: string, limitBytes: number): number {
    this.text = undefined;
    if (this.#length === 0) {
      const found = chunk.indexOf(end, at, "latin1");
      if (found >= 0 && found - at <= limitBytes) {
        this.text = chunk.toString("latin1", at, found);
        return found + end.length;
      }
    }
    const before = this.#length;
    this.#keep(chunk, at, limitBytes + end.length - before);
    const found = this.#bytes.subarray(0, this.#length).indexOf(end, Math.max(0, before - end.length + 1), "latin1");
    if (found < 0) {
      if (this.#length >= limitBytes + end.length) throw nonsense("it talks without an end");
      return chunk.length;
    }
    this.text = this.#bytes.toString("latin1", 0, found);
    this.#bytes = empty;
    this.#length = 0;
    return at + found + end.length - before;
  }

  #keep(chunk: Buffer, at: number, most = chunk.length): void {
    const part = chunk.subarray(at, at + most);
    const length = this.#length + part.length;
    if (length > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(256, 2 * this.#bytes.length, length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    part.copy(this.#bytes, this.#length);
    this.#length = length;
  }
}

/** Why what a server in a sandbox says cannot be shown. */
export function nonsense(why: string, cause?: unknown): SandboxError {
  return new SandboxError("SERVICE_NOT_RESPONDING", `Cannot show what the server in the sandbox says: ${why}`, {
    cause,
    suggestion: "Look at the server's own log",
  });
}
