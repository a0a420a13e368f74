import { SandboxError } from "../protocol/errors.ts";
import { decodeEvents } from "../protocol/event-stream.ts";
import type { VerbName } from "../protocol/verbs.ts";
import { lostBy, type Lost, type Outage } from "./outage.ts";
import { eventBody, notOurs } from "./refusal.ts";
import type { Attempt, Taken } from "./transport.ts";

/** An event with the id it came with: what a reader that comes back says it has. */
export type Arrived<T> = { id?: string; event: T };

type Following = {
  verb: VerbName;
  silenceMs: number;
  outage: Outage;
  taken: () => Taken;
  attempt: Attempt;
  lastId: string | undefined;
  onRestart?: () => void;
};

/** What has been read of a stream, over all its connections. */
type Place = { lastId: string | undefined; unnumbered: boolean };

/** The events that end a stream; one that stops before them was cut off. */
const lastTypes: ReadonlySet<unknown> = new Set(["complete", "caught-up", "error", "stopped"]);

/** The end of an answer follows its last event at once; beyond this the connection is not worth keeping. */
const drainLimitMs = 1_000;

/**
 * The events of a verb up to its last, over as many connections as it takes: after a loss, a proxy's error or silence it
 * asks again behind the last id. An `error` event is thrown. Leaving the loop closes the connection.
 */
export async function* followEvents<T>(following: Following): AsyncGenerator<Arrived<T>> {
  const place: Place = { lastId: following.lastId, unnumbered: false };
  for (;;) {
    const lost = yield* followOnce<T>(following, place);
    if (!lost) return;
    const { controller, release } = following.taken();
    try {
      await following.outage.pause(lost, controller.signal);
    } finally {
      release();
    }
  }
}

/** The events of one connection; returns why it was lost, or nothing after the last event. */
async function* followOnce<T>(following: Following, place: Place): AsyncGenerator<Arrived<T>, Lost | undefined> {
  const { verb, outage, attempt, onRestart } = following;
  const { controller, release } = following.taken();
  const silence = watchSilence(following.silenceMs, controller);
  let arriving: ReturnType<typeof decodeEvents> | undefined;
  let ended = false;
  try {
    const answer = await attempt(controller, place.lastId === undefined ? {} : { "last-event-id": place.lastId });
    if ("lost" in answer) return answer;
    silence.heard();
    if (place.unnumbered) onRestart?.();
    place.unnumbered = false;
    arriving = decodeEvents(eventBody(verb, answer), silence.heard);
    for (;;) {
      const next = await arriving.next();
      if (next.done) return { lost: "the stream ended before its last event", sent: true };
      outage.over();
      const { id, data } = next.value;
      const event = parse(verb, data);
      ended = lastTypes.has(event.type);
      if (event.type === "error") throw refused(verb, event.error);
      if (id !== undefined) place.lastId = id;
      else place.unnumbered = place.lastId === undefined;
      yield { ...(id !== undefined && { id }), event: event as T };
      if (ended) return undefined;
    }
  } catch (error) {
    if (silence.broke()) return { lost: `nothing came for ${following.silenceMs / 1_000} s`, sent: true };
    if (SandboxError.is(error)) throw error;
    if (error instanceof RangeError) throw notOurs(verb, error.message, error);
    controller.signal.throwIfAborted();
    return lostBy(error);
  } finally {
    silence.stop();
    if (arriving && ended) void drain(arriving, controller).finally(release);
    else {
      controller.abort();
      void arriving?.return();
      release();
    }
  }
}

/** Aborts `controller` when nothing is heard for `limitMs`. One timer, set anew only when it fires. */
function watchSilence(limitMs: number, controller: AbortController) {
  let heardAt = performance.now();
  let broke = false;
  let timer = setTimeout(look, limitMs);
  function look(): void {
    const leftMs = heardAt + limitMs - performance.now();
    if (leftMs > 0) timer = setTimeout(look, leftMs);
    else {
      broke = true;
      controller.abort();
    }
  }
  return {
    heard: () => void (heardAt = performance.now()),
    broke: () => broke,
    stop: () => clearTimeout(timer),
  };
}

/** Reads what follows the last event, so that the connection can carry the next call. */
async function drain(arriving: AsyncGenerator<unknown>, controller: AbortController): Promise<void> {
  const timer = setTimeout(() => controller.abort(), drainLimitMs);
  try {
    while (!(await arriving.next()).done);
  } catch {
    // the stream had told everything; only its connection is lost
  } finally {
    clearTimeout(timer);
  }
}

function parse(verb: VerbName, data: string): { type: unknown; error?: unknown } {
  let event: unknown;
  try {
    event = JSON.parse(data);
  } catch (error) {
    throw notOurs(verb, "an event is not JSON", error);
  }
  if (typeof event === "object" && event !== null && "type" in event) return event;
  throw notOurs(verb, "an event has no type");
}

function refused(verb: VerbName, body: unknown): SandboxError {
  const error = SandboxError.from(body);
  error.operation ??= verb;
  return error;
}
