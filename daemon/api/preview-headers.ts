/** Headers as Node gives and takes them: name, value, name, value, in the order and with the letters in which they came. */
export type RawHeaders = readonly string[];

/** What is true of a connection only, by RFC 9110 7.6.1, and what announces trailers, which we do not pass on. */
const ofConnection: ReadonlySet<string> = new Set([
  ...["connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"],
  ...["te", "trailer", "transfer-encoding", "upgrade", "http2-settings"],
]);

/** What only we say: a visitor who says it is not believed. Some servers take "_" for "-". */
const ofSystem = /^(x[-_]forwarded[-_].*|forwarded|x[-_]real[-_]ip|atoll[-_].*)$/;

/** Said anew, or answered already, by us. */
const ofFraming: ReadonlySet<string> = new Set(["host", "content-length", "expect", "authorization"]);

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
  const dropped = nominated(raw);
  const inner = ["Host", `localhost:${port}`];
  let length: string | undefined;
  let isChunked = false;
  for (let at = 0; at < raw.length; at += 2) {
    const [name = "", value = ""] = [raw[at], raw[at + 1]];
    const lower = name.toLowerCase();
    if (lower === "content-length") length ??= value;
    else if (lower === "transfer-encoding") isChunked = true;
    else if (ofConnection.has(lower) || dropped?.has(lower) || ofFraming.has(lower) || ofSystem.test(lower)) continue;
    else inner.push(name, value);
  }
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
  const dropped = nominated(raw);
  const kept: string[] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const [name = "", value = ""] = [raw[at], raw[at + 1]];
    const lower = name.toLowerCase();
    if (lower === "content-length") {
      // an answer's length is its framing: no Connection header takes it away
      if (status !== 204 && status >= 200) kept.push(name, value);
    } else if (ofConnection.has(lower) || dropped?.has(lower) || /^atoll[-_]/.test(lower)) continue;
    else if (!shared || lower !== "service-worker-allowed") kept.push(name, value);
  }
  return kept;
}

/** The first value of a header; `name` in lower case. */
export function valueOf(raw: RawHeaders, name: string): string | undefined {
  for (let at = 0; at < raw.length; at += 2) if (raw[at]?.toLowerCase() === name) return raw[at + 1];
  return undefined;
}

/** The headers that the Connection header says are its own; undefined when it names none. */
function nominated(raw: RawHeaders): Set<string> | undefined {
  let names: Set<string> | undefined;
  for (let at = 0; at < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() !== "connection") continue;
    for (const name of (raw[at + 1] ?? "").split(",")) (names ??= new Set()).add(name.trim().toLowerCase());
  }
  return names;
}
