import { SandboxError } from "../protocol/errors.ts";
import type { VerbName } from "../protocol/verbs.ts";
import { lostBy, type Lost, type Outage } from "./outage.ts";
import type { Attempt, Taken } from "./transport.ts";

/** Bytes on their way, and what was said of them. */
export type Download = { headers: Headers; body: ReadableStream<Uint8Array> };

type Source = {
  verb: VerbName;
  resumable: boolean;
  outage: Outage;
  taken: Taken;
  attempt: Attempt;
};

/** The header with a file's description, which must be the same when a download goes on. */
const describedBy = "atoll-file";

/**
 * The body of `first` as one stream. Where it breaks and the source is resumable, the rest is asked for by Range, as long
 * as the file is still the same one; otherwise the reader gets OPERATION_INTERRUPTED. Cancelling ends the request.
 */
export function download(first: Response, source: Source): Download {
  const { controller, release } = source.taken;
  let reader = bodyOf(first).getReader();
  let received = 0;

  const body = new ReadableStream<Uint8Array>(
    {
      async pull(sink) {
        try {
          const chunk = await next();
          if (chunk) return sink.enqueue(chunk);
          release();
          sink.close();
        } catch (error) {
          release();
          throw error;
        }
      },
      async cancel() {
        controller.abort();
        release();
        await reader.cancel().catch(() => {}); // it was aborted a line before
      },
    },
    { highWaterMark: 0 },
  );
  return { headers: first.headers, body };

  async function next(): Promise<Uint8Array | undefined> {
    for (;;) {
      const outcome = await reader.read().catch(lostBy);
      if (!("lost" in outcome)) {
        if (outcome.done) return undefined;
        source.outage.over();
        received += outcome.value.length;
        return outcome.value;
      }
      controller.signal.throwIfAborted();
      reader = await goOn(outcome);
    }
  }

  async function goOn(lost: Lost): Promise<ReadableStreamDefaultReader<Uint8Array>> {
    if (!source.resumable) throw cutOff(source.verb, lost.lost, lost.cause);
    let why = lost;
    for (;;) {
      await source.outage.pause(why, controller.signal);
      const etag = first.headers.get("etag");
      const headers = { range: `bytes=${received}-`, ...(etag !== null && { "if-range": etag }) };
      const response = await source.attempt(controller, headers);
      if ("lost" in response) {
        why = response;
        continue;
      }
      const same = response.headers.get(describedBy) === first.headers.get(describedBy);
      const begins = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
      if (same && response.status === 206 && Number(begins) === received) return bodyOf(response).getReader();
      controller.abort();
      throw cutOff(
        source.verb,
        same ? `${lost.lost}, and the rest is not to be had` : "the file has changed meanwhile",
      );
    }
  }
}

/** An empty answer has no body in some runtimes. */
function bodyOf(response: Response): ReadableStream<Uint8Array> {
  return response.body ?? new ReadableStream({ start: (controller) => controller.close() });
}

function cutOff(verb: VerbName, why: string, cause?: unknown): SandboxError {
  return new SandboxError("OPERATION_INTERRUPTED", `Cannot ${verb} to its end: ${why}`, {
    suggestion: "Read it again from the start",
    operation: verb,
    cause,
  });
}
