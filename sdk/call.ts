import { verbPath, verbs } from "../protocol/verbs.ts";
import type { VerbName, VerbRequest } from "../protocol/verbs.ts";
import { textToBytes } from "./bytes.ts";

/** What a caller gives for a verb: only what the verb has. */
export type CallOf<V extends VerbName> = { params: VerbRequest<V>["params"] } & Part<"query", VerbRequest<V>["query"]> &
  Part<"body", VerbRequest<V>["body"]>;

/** A part that may be left out when nothing in it is required. */
type Part<Name extends string, T> = undefined extends T
  ? { [N in Name]?: undefined }
  : Record<never, never> extends T
    ? { [N in Name]?: T }
    : { [N in Name]: T };

/** A call as fetch wants it, ready to be sent as often as needed. */
export type Prepared = {
  verb: VerbName;
  /** Path and query. */
  path: string;
  headers: Record<string, string>;
  init: RequestInit;
  /** False where the body is a stream, which can be sent once. */
  replayable: boolean;
  /** What the caller's own stream threw while it was sent. */
  bodyError(): { error: unknown } | undefined;
  /** Cancels what is left of the caller's own stream. */
  discard(): void;
};

type Query = Record<string, string | number | undefined>;

export function prepare<V extends VerbName>(verb: V, call: CallOf<V>): Prepared {
  const { params, query, body } = call as {
    params: Record<string, string>;
    query?: Query;
    body?: unknown;
  };
  const { method } = verbs[verb];
  const prepared = { verb, path: verbPath(verb, params) + search(query), replayable: true, ...noStream };
  const takes = "body" in verbs[verb] ? verbs[verb].body : undefined;
  if (takes === undefined) return { ...prepared, headers: {}, init: { method } };
  if (takes !== "bytes") {
    const headers = { "content-type": "application/json" };
    return { ...prepared, headers, init: { method, body: JSON.stringify(body ?? {}) } };
  }
  const headers = { "content-type": "application/octet-stream" };
  if (!(body instanceof ReadableStream)) return { ...prepared, headers, init: { method, body: body as BodyInit } };
  const { stream, ...ofStream } = watched(body as ReadableStream<Uint8Array | string>);
  // `half`: fetch refuses a stream without it, and the type does not know it everywhere.
  const init = { method, body: stream, duplex: "half", ...sentOnce() } as RequestInit;
  return { ...prepared, headers, init, replayable: false, ...ofStream };
}

/**
 * By the standard fetch keeps all that a stream has given, to send it again, unless there is no redirect and nobody who could be
 * asked. Node does so, and would hold a whole upload in memory. Workers, which do not, refuse to be told.
 */
export function sentOnce(): object {
  const { process } = globalThis as { process?: { versions?: { undici?: string } } };
  return process?.versions?.undici === undefined ? {} : { redirect: "error", window: null };
}

function search(query: Query | undefined): string {
  if (!query) return "";
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) pairs.set(name, String(value));
  return pairs.size > 0 ? `?${pairs}` : "";
}

const noStream = { bodyError: () => undefined, discard: () => {} };

/** `source`, remembering what it throws, because fetch tells its own words instead. Text in it becomes UTF-8. */
function watched(
  source: ReadableStream<Uint8Array | string>,
): { stream: ReadableStream<Uint8Array> } & Pick<Prepared, "bodyError" | "discard"> {
  const reader = source.getReader();
  let thrown: { error: unknown } | undefined;
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          if (done) controller.close();
          else controller.enqueue(typeof value === "string" ? textToBytes(value) : value);
        } catch (error) {
          thrown = { error };
          throw error;
        }
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
  return {
    stream,
    bodyError: () => thrown,
    discard() {
      // Not by fetch's hand: it cancels a stream only between two reads. What the source throws concerns nobody any more.
      reader.cancel().catch(() => {});
    },
  };
}
