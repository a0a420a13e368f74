import { readHttpHead, type HttpHead } from "./http-head.ts";
import type { Finding } from "./inspect.ts";

/**
 * Reads the requests of an HTTP/1 connection one after the other, each body by its framing, and refuses one that is not
 * addressed to `host`. Framing is read strictly: what a server could read differently could hide a request in a body.
 * After a request that may change the protocol (Upgrade, CONNECT) the bytes behind it are judged as a new connection's.
 */
export function createHttpReader(host: string): (bytes: Buffer) => Finding {
  let state: State = { kind: "head" };
  /** Up to where the bytes given have been searched for a line end; they begin with this again until it is passed. */
  let searched = 0;
  let lines: string[] = [];
  let lineStart = 0;

  const refuse = (why: string): Finding => ({ kind: "refuse", why });
  /** The next whole line, without its CRLF; null when it has a lone LF or CR in it. */
  const nextLine = (bytes: Buffer): string | null | undefined => {
    const end = bytes.indexOf(lf, searched);
    searched = end < 0 ? bytes.length : end + 1;
    if (end < 0) return undefined;
    const line = bytes.toString("latin1", lineStart, end);
    lineStart = end + 1;
    return /^[^\r]*\r$/.test(line) ? line.slice(0, -1) : null;
  };
  const pass = (next: State, then?: "start"): Finding => {
    const bytes = lineStart;
    state = next;
    searched = 0;
    lineStart = 0;
    lines = [];
    return { kind: "pass", bytes, ...(then && { then }) };
  };
  const readHead = (): Finding => {
    const head = readHttpHead(lines);
    if (typeof head === "string") return refuse(`it has ${head}`);
    const liar = [head.target, head.host].find((name) => name !== undefined && name !== host);
    if (liar !== undefined) return refuse(`its request is for "${liar}"`);
    return head.body.kind === "none" && head.upgrade ? pass({ kind: "head" }, "start") : pass(bodyState(head));
  };
  const readLines = (bytes: Buffer): Finding => {
    for (;;) {
      const line = nextLine(bytes);
      if (line === undefined) return { kind: "more" };
      if (line === null) return refuse("it has a line that does not end with CRLF");
      if (state.kind === "chunk") {
        const size = /^([0-9a-f]{1,12})[ \t]*(;.*)?$/i.exec(line);
        if (!size) return refuse("it has a chunk of no length");
        const length = Number.parseInt(size[1]!, 16);
        return pass(length === 0 ? { ...state, kind: "trailer" } : { ...state, kind: "chunk-data", bytes: length });
      }
      if (state.kind === "chunk-end")
        return line === "" ? pass({ ...state, kind: "chunk" }) : refuse("it has a chunk of two lengths");
      if (state.kind === "trailer")
        return line === "" ? pass({ kind: "head" }, state.upgrade ? "start" : undefined) : pass(state);
      if (line !== "") lines.push(line);
      else if (lines.length > 0) return readHead();
    }
  };

  return (bytes) => {
    if (state.kind !== "length" && state.kind !== "chunk-data") return readLines(bytes);
    if (bytes.length === 0) return { kind: "more" };
    const taken = Math.min(bytes.length, state.bytes);
    const left = state.bytes - taken;
    const after = left > 0 ? undefined : state.kind === "length" && state.upgrade ? ("start" as const) : undefined;
    if (left > 0) state = { ...state, bytes: left };
    else state = state.kind === "length" ? { kind: "head" } : { ...state, kind: "chunk-end" };
    return { kind: "pass", bytes: taken, ...(after && { then: after }) };
  };
}

type State =
  | { kind: "head" }
  | { kind: "length" | "chunk-data"; bytes: number; upgrade: boolean }
  | { kind: "chunk" | "chunk-end" | "trailer"; upgrade: boolean };

function bodyState({ body, upgrade }: HttpHead): State {
  if (body.kind === "chunked") return { kind: "chunk", upgrade };
  return body.kind === "none" || body.bytes === 0 ? { kind: "head" } : { kind: "length", bytes: body.bytes, upgrade };
}

const lf = 0x0a;
