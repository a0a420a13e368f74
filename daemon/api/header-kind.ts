import { remember } from "./remember.ts";

/** What a header is to somebody who passes it on. */
export type HeaderKind =
  /** These frame the message. */
  | "connection"
  | "transfer-encoding"
  | "content-length"
  /** True of a connection only, by RFC 9110 7.6.1, or announces trailers, which we do not pass on. */
  | "hop"
  /** What an inner server is told by us, whatever its visitor says. Some servers take "_" for "-". */
  | "visit"
  /** What only we say, to either side. */
  | "system"
  /** How far the worker of a page reaches. */
  | "worker scope"
  | "plain"
  /** No name, by RFC 9110 5.1. */
  | "invalid";

const byName = new Map<string, HeaderKind>([
  ["connection", "connection"],
  ["transfer-encoding", "transfer-encoding"],
  ["content-length", "content-length"],
  ...["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"].map(are("hop")),
  ["close", "hop"], // the option of Connection; RFC 9112 9.6 keeps anybody from giving a header that name
  ...["te", "trailer", "upgrade", "http2-settings"].map(are("hop")),
  ...["forwarded", "host", "expect", "authorization"].map(are("visit")),
  ["service-worker-allowed", "worker scope"],
]);

/** Its name in any case of letters. */
export const kindOf: (name: string) => HeaderKind = remember(1_000, 64, (name) => {
  const lower = name.toLowerCase();
  if (/[^!#$%&'*+.^_`|~0-9a-z-]/.test(lower) || lower === "") return "invalid";
  if (/^atoll[-_]/.test(lower)) return "system";
  if (/^(x[-_]forwarded[-_].*|x[-_]real[-_]ip)$/.test(lower)) return "visit";
  return byName.get(lower) ?? "plain";
});

/** What the value of a Connection header says, in lower case. */
export const optionsIn = remember(1_000, 256, (value) =>
  value
    .toLowerCase()
    .split(",")
    .map((option) => option.trim()),
);

function are(kind: HeaderKind): (name: string) => [string, HeaderKind] {
  return (name) => [name, kind];
}
