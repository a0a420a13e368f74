import { trimBlanks } from "../protocol/blanks.ts";

/** What the gateway needs to know of an HTTP/1 request head. */
export type HttpHead = {
  method: string;
  /** Who is addressed, lower case without port: from the Host header, or undefined (HTTP/1.0). */
  host?: string;
  /** Who the request line addresses, in absolute form or for CONNECT. */
  target?: string;
  body: { kind: "none" } | { kind: "length"; bytes: number } | { kind: "chunked" };
  /** The connection may speak something else afterwards. */
  upgrade: boolean;
};

/**
 * Whether a line (without its end) opens an HTTP request. Wider than the standard, as servers are. One "\s" before "HTTP": with
 * "\s+" a line of 64 KiB of blanks took seconds.
 */
export function isRequestLine(line: string): boolean {
  return /^[!#$%&'*+.^_`|~0-9a-z-]+\s+\S.*\sHTTP\/\d/is.test(line);
}

/**
 * Reads a request head from its lines (without CRLF). Gives a text with the reason instead when it could be understood in
 * two ways (RFC 9112 sections 5 and 6, stricter: what a server might read differently would carry a request past us).
 */
export function readHttpHead(lines: readonly string[]): HttpHead | string {
  const request = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP\/1\.([01])$/.exec(lines[0] ?? "");
  if (!request) return "a request line that is none";
  const [, method, target, minor] = request;
  const fields = new Map<string, string[]>();
  for (const line of lines.slice(1)) {
    const field = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)$/.exec(line);
    // Control characters are refused with it: some servers end a line at a lone CR.
    if (!field || /[\0-\x08\x0a-\x1f\x7f]/.test(line)) return "a header line that is none";
    const name = field[1]!.toLowerCase();
    const values = fields.get(name);
    const value = trimBlanks(field[2]!);
    if (values) values.push(value);
    else fields.set(name, [value]);
  }
  const body = readFraming(fields, minor!);
  if (typeof body === "string") return body;
  const hosts = fields.get("host") ?? [];
  if (hosts.length > 1) return "two Host headers";
  const host = hosts[0] === undefined ? undefined : hostOfAuthority(hosts[0]);
  const addressed = method === "CONNECT" ? hostOfAuthority(target!) : hostOfAbsolute(target!);
  return {
    method: method!,
    body,
    upgrade: fields.has("upgrade") || method === "CONNECT",
    ...(host !== undefined && { host }),
    ...(addressed !== undefined && { target: addressed }),
  };
}

function readFraming(fields: Map<string, string[]>, minor: string): HttpHead["body"] | string {
  const lengths = fields.get("content-length") ?? [];
  const encodings = fields.get("transfer-encoding") ?? [];
  if (encodings.length > 0) {
    if (lengths.length > 0 || minor === "0") return "a body of two lengths";
    if (encodings.length > 1 || encodings[0]!.toLowerCase() !== "chunked")
      return "a transfer encoding other than chunked";
    return { kind: "chunked" };
  }
  if (lengths.length === 0) return { kind: "none" };
  if (lengths.length > 1 || !/^\d{1,15}$/.test(lengths[0]!)) return "a body of two lengths";
  return { kind: "length", bytes: Number(lengths[0]) };
}

/** "Example.com.:8080" is example.com. What is no such thing comes back as it is, and equals no name. */
function hostOfAuthority(authority: string): string {
  return /^([^:@/]*?)\.?(:\d*)?$/.exec(authority)?.[1]!.toLowerCase() ?? authority;
}

function hostOfAbsolute(target: string): string | undefined {
  if (target.startsWith("/") || target === "*") return undefined;
  return hostOfAuthority(/^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(target)?.[1] ?? target);
}
