import { kindOf, optionsIn } from "./header-kind.ts";
import { remember } from "./remember.ts";

/** Headers as Node gives and takes them: name, value, name, value, in the order and with the letters in which they came. */
export type RawHeaders = readonly string[];

/** Who visits, as the inner server is told. */
export type Visitor = {
  /** The Host header as it came. */
  host: string;
  proto: string;
  address: string | undefined;
  /** What was cut from the front of the path. */
  prefix?: string | undefined;
  /** What the inner server is given as Authorization: absent where the header that came was for us. */
  authorization?: string | undefined;
};

/** What the inner server gets: the visitor's headers without those of the connection and of the system, and ours. */
export function toInner(raw: RawHeaders, port: number, visitor: Visitor, upgrade?: string): string[] {
  const inner = ["Host", `localhost:${port}`];
  let length: string | undefined;
  let isChunked = false;
  let options = "";
  for (let at = 0; at < raw.length; at += 2) {
    const [name, value] = [raw[at]!, raw[at + 1]!];
    const kind = kindOf(name);
    if (kind === "plain" || kind === "worker scope") inner.push(name, value);
    else if (kind === "connection") options += `,${value}`;
    else if (kind === "content-length") length ??= value;
    else if (kind === "transfer-encoding") isChunked = true;
  }
  dropNominated(inner, options, 2);
  if (isChunked) inner.push("Transfer-Encoding", "chunked");
  else if (length !== undefined) inner.push("Content-Length", length);
  inner.push("X-Forwarded-Host", visitor.host, "X-Forwarded-Proto", visitor.proto);
  if (visitor.authorization !== undefined) inner.push("Authorization", visitor.authorization);
  if (visitor.address !== undefined) inner.push("X-Forwarded-For", visitor.address);
  if (visitor.prefix !== undefined) inner.push("X-Forwarded-Prefix", visitor.prefix);
  if (upgrade !== undefined) inner.push("Connection", "Upgrade", "Upgrade", upgrade);
  return inner;
}

/** What the visitor gets. `shared`: the page shares its origin with others', so it may not claim more than its own path. */
export function toVisitor(raw: RawHeaders, status: number, shared: boolean): string[] {
  const kept: string[] = [];
  let options = "";
  for (let at = 0; at < raw.length; at += 2) {
    const [name, value] = [raw[at]!, raw[at + 1]!];
    const kind = kindOf(name);
    if (kind === "plain" || kind === "visit") kept.push(name, value);
    else if (kind === "connection") options += `,${value}`;
    else if (kind === "content-length" && status !== 204 && status >= 200) kept.push(name, value);
    else if (kind === "worker scope" && !shared) kept.push(name, value);
  }
  dropNominated(kept, options, 0);
  return kept;
}

/** The first value of a header; `name` in lower case. */
export function valueOf(raw: RawHeaders, name: string): string | undefined {
  for (let at = 0; at < raw.length; at += 2) if (raw[at]?.toLowerCase() === name) return raw[at + 1];
  return undefined;
}

/** Takes away, from `from` on, the headers that the Connection header says are its own. */
function dropNominated(headers: string[], options: string, from: number): void {
  const names = nominated(options);
  if (names.size === 0) return;
  let end = from;
  for (let at = from; at < headers.length; at += 2) {
    const [name, value] = [headers[at]!, headers[at + 1]!];
    if (names.has(name.toLowerCase())) continue;
    headers[end++] = name;
    headers[end++] = value;
  }
  headers.length = end;
}

/** Those that a Connection header says are its own. Mostly there are none, and what frames a message is not its to take away. */
const nominated = remember(
  1_000,
  256,
  // a set: a head has room for ten thousand names, and as many headers
  (options): ReadonlySet<string> =>
    new Set(optionsIn(options).filter((name) => ["plain", "visit", "worker scope"].includes(kindOf(name)))),
);
