import type { IncomingMessage } from "node:http";
import type { EventOutput, EventVerb, JsonOutput, JsonVerb, VerbInput, VerbName, Verbs } from "../../protocol/verbs.ts";
import type { Run } from "./run.ts";

/** What a request carries beside its parsed input. */
export type Call = {
  /** Aborts when the caller has gone. */
  signal: AbortSignal;
  /** The call may be open for days: from now on the run is used only while something flows (Activity.touch). */
  letGo(): void;
  /** Id of the last event the caller has seen: an event stream goes on behind it. */
  lastEventId?: string | undefined;
  /** The Range header of a download, and the If-Range that makes a resumed one safe. */
  range?: string | undefined;
  ifRange?: string | undefined;
};

export type BytesAnswer = { status: number; headers: Record<string, string>; body: IncomingMessage };

export type Answer<V extends VerbName> = V extends JsonVerb
  ? JsonOutput<V>
  : V extends EventVerb
    ? AsyncIterable<{ id?: string; event: EventOutput<V> }>
    : BytesAnswer;

/** What a verb acts on, by what it needs: a run, perhaps a run, or only the name in its path. */
type Target<V extends VerbName> = Verbs[V]["needs"] extends "start"
  ? Run
  : Verbs[V]["needs"] extends "running"
    ? Run | undefined
    : undefined;

/**
 * The function that does a verb's work. What it throws before it answers becomes the response's error; what an event
 * stream throws later becomes its last event.
 */
export type Serve<V extends VerbName> = (target: Target<V>, input: VerbInput<V>, call: Call) => Promise<Answer<V>>;

export type ServeTable<Names extends VerbName> = { [V in Names]: Serve<V> };
