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
  const kept = pick(raw, (name) => {
    return !ofConnection.has(name) && !dropped.has(name) && !ofSystem.test(name) && !ofFraming.has(name);
  });
  const length = valueOf(raw, "content-length");
  const body =
    valueOf(raw, "transfer-encoding") !== undefined
      ? ["Transfer-Encoding", "chunked"]
      : length !== undefined
        ? ["Content-Length", length]
        : [];
  return [
    ...["Host", `localhost:${port}`, ...kept, ...body],
    ...["X-Forwarded-Host", visitor.host, "X-Forwarded-Proto", visitor.proto],
    ...(visitor.authorization === undefined ? [] : ["Authorization", visitor.authorization]),
    ...(visitor.address === undefined ? [] : ["X-Forwarded-For", visitor.address]),
    ...(visitor.prefix === undefined ? [] : ["X-Forwarded-Prefix", visitor.prefix]),
    ...(upgrade === undefined ? [] : ["Connection", "Upgrade", "Upgrade", upgrade]),
  ];
}

/** What the visitor gets. `shared`: the page shares its origin with others', so it may not claim more than its own path. */
export function toVisitor(raw: RawHeaders, status: number, shared: boolean): string[] {
  const dropped = nominated(raw);
  // the length of an answer is its framing: no Connection header takes it away
  dropped.delete("content-length");
  return pick(raw, (name) => {
    if (ofConnection.has(name) || dropped.has(name) || /^atoll[-_]/.test(name)) return false;
    if (shared && name === "service-worker-allowed") return false;
    return name !== "content-length" || (status !== 204 && status >= 200);
  });
}

/** The first value of a header; `name` in lower case. */
export function valueOf(raw: RawHeaders, name: string): string | undefined {
  for (let at = 0; at < raw.length; at += 2) if (raw[at]?.toLowerCase() === name) return raw[at + 1];
  return undefined;
}

/** The headers that the Connection header says are its own. */
function nominated(raw: RawHeaders): Set<string> {
  const names = new Set<string>();
  for (let at = 0; at < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() !== "connection") continue;
    for (const name of (raw[at + 1] ?? "").split(",")) names.add(name.trim().toLowerCase());
  }
  return names;
}

function pick(raw: RawHeaders, isKept: (name: string) => boolean): string[] {
  const kept: string[] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const [name = "", value = ""] = [raw[at], raw[at + 1]];
    if (isKept(name.toLowerCase())) kept.push(name, value);
  }
  return kept;
}
