import { SandboxError } from "../protocol/errors.ts";
import { verbs } from "../protocol/verbs.ts";
import { wireHeader, wireVersion } from "../protocol/version.ts";
import type { BytesVerb, EventOutput, EventVerb, JsonOutput, JsonVerb, VerbName } from "../protocol/verbs.ts";
import { prepare, type CallOf, type Prepared } from "./call.ts";
import { download, type Download } from "./download.ts";
import type { Endpoint } from "./endpoint.ts";
import { followEvents, type Arrived } from "./follow-events.ts";
import { defaultPatience, lostBy, outage, type Lost, type Outage, type Patience } from "./outage.ts";
import { readJson, readRefusal } from "./refusal.ts";
import type { Send } from "./send.ts";

export type EventOptions = {
  signal?: AbortSignal | undefined;
  /** Id of an earlier stream's last event: this one goes on behind it. */
  lastId?: string | undefined;
  /** Called when a stream begins anew after events without ids had come: they will come again. */
  onRestart?: () => void;
};

/**
 * The one way to a daemon. It fills in address and token, tries again what may be tried again, and turns what a daemon
 * refuses into SandboxErrors. A daemon that restarts within seconds is not noticed.
 */
export type Transport = {
  /**
   * One call with a JSON answer. What may be done twice is repeated after a broken connection; anything else only when
   * it surely never arrived, and fails with OPERATION_INTERRUPTED when nobody knows.
   */
  json<V extends JsonVerb>(verb: V, call: CallOf<V>, signal?: AbortSignal): Promise<JsonOutput<V>>;
  /** Events until the one that ends them; after a loss the stream goes on behind the last event that had an id. */
  events<V extends EventVerb>(
    verb: V,
    call: CallOf<V>,
    options?: EventOptions,
  ): AsyncGenerator<Arrived<EventOutput<V>>>;
  /** Bytes; `resumable` ones go on where a lost connection cut them. */
  bytes<V extends BytesVerb>(verb: V, call: CallOf<V>, options: { resumable: boolean }): Promise<Download>;
  /**
   * A request as it is, once, with the token; whatever is answered is the answer, redirects too. Throws
   * SANDBOX_UNAVAILABLE when no daemon answers. `send`: what sends it; default: fetch.
   */
  forward(path: string, init: RequestInit, send?: Send): Promise<Response>;
  /** Where the daemon is now, for what is no call: a WebSocket that others open. */
  endpoint(): Promise<Endpoint>;
  /** Ends everything that is under way with ABORTED, and refuses what comes later. */
  close(): void;
};

/** One request's answer, or that there was none. */
export type Attempt = (controller: AbortController, headers: Record<string, string>) => Promise<Response | Lost>;

/** A controller that the caller's signal and close() abort, until it is released. */
export type Taken = { controller: AbortController; release: () => void };

/** What may be done twice with the same outcome, beside every GET. */
const repeatable: ReadonlySet<VerbName> = new Set<VerbName>([
  "configure",
  "set",
  "start",
  "stop",
  "destroy",
  "stopProcess",
  "setSessionEnv",
  "exposePort",
  "validatePortToken",
  "writeFile",
]);

/** A transport to the daemon that `find` names; it is asked again after a loss, because a new daemon may be elsewhere. */
export function createTransport(find: () => Promise<Endpoint>, patience: Patience = defaultPatience): Transport {
  const open = new Set<AbortController>();
  const closing = new AbortController();
  let closed: SandboxError | undefined;
  let known: Endpoint | undefined;
  let last: Endpoint | undefined;
  let answered = false;

  return {
    async json(verb, call, signal) {
      const prepared = prepare(verb, call);
      const mayRepeat = prepared.replayable && (verbs[verb].method === "GET" || repeatable.has(verb));
      const { controller, release } = take(signal);
      try {
        const { json } = await persist(prepared, mayRepeat, controller, readJson);
        return json as JsonOutput<typeof verb>;
      } finally {
        release();
        prepared.discard();
      }
    },
    events(verb, call, options = {}) {
      const prepared = prepare(verb, call);
      return followEvents<EventOutput<typeof verb>>({
        verb,
        silenceMs: patience.silenceMs,
        outage: newOutage(),
        taken: () => take(options.signal),
        attempt: (controller, headers) => attempt(prepared, controller, headers),
        lastId: options.lastId,
        ...(options.onRestart && { onRestart: options.onRestart }),
      });
    },
    async bytes(verb, call, { resumable }) {
      const prepared = prepare(verb, call);
      const taken = take(undefined);
      try {
        const first = await persist(prepared, true, taken.controller, asItIs);
        return download(first, {
          verb,
          resumable,
          outage: newOutage(),
          taken,
          attempt: (controller, headers) => attempt(prepared, controller, headers),
        });
      } catch (error) {
        taken.release();
        throw error;
      }
    },
    async forward(path, init, send = fetch) {
      if (closed) throw closed;
      const endpoint = known ?? (await where());
      const signal = init.signal ? AbortSignal.any([closing.signal, init.signal]) : closing.signal;
      const headers = new Headers(init.headers);
      if (endpoint.token !== undefined) headers.set("authorization", `Bearer ${endpoint.token}`);
      try {
        return await send(endpoint.url + path, { ...init, headers, signal });
      } catch (error) {
        if (signal.aborted) throw aborted(signal.reason);
        if (SandboxError.is(error)) throw error;
        known = undefined;
        const { lost } = lostBy(error);
        throw new SandboxError("SANDBOX_UNAVAILABLE", `Cannot reach the daemon at ${endpoint.url}: ${lost}`, {
          cause: error,
        });
      }
    },
    endpoint: where,
    close() {
      closed = new SandboxError("ABORTED", "Cannot go on: the connection was closed");
      for (const controller of open) controller.abort(closed);
      closing.abort(closed);
    },
  };

  function take(signal: AbortSignal | undefined): Taken {
    const controller = new AbortController();
    const abort = () => controller.abort(aborted(signal?.reason));
    if (closed) controller.abort(closed);
    else if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
    open.add(controller);
    return {
      controller,
      release() {
        open.delete(controller);
        signal?.removeEventListener("abort", abort);
      },
    };
  }

  /** Attempts until one is answered and read, as far as `mayRepeat` and the patience allow. */
  async function persist<T extends object>(
    prepared: Prepared,
    mayRepeat: boolean,
    controller: AbortController,
    read: (verb: VerbName, response: Response) => Promise<T | Lost>,
  ): Promise<T> {
    let waiting: Outage | undefined;
    for (;;) {
      const response = await attempt(prepared, controller, {});
      const outcome = "lost" in response ? response : await read(prepared.verb, response);
      if (!("lost" in outcome)) return outcome;
      controller.signal.throwIfAborted();
      if (outcome.sent && !mayRepeat) throw interrupted(prepared.verb, outcome);
      waiting ??= newOutage();
      await waiting.pause(outcome, controller.signal);
    }
  }

  /** One request. Throws what the daemon refused, what the signal says, and what the caller's own body threw. */
  async function attempt(
    prepared: Prepared,
    controller: AbortController,
    headers: Record<string, string>,
  ): Promise<Response | Lost> {
    controller.signal.throwIfAborted();
    const endpoint = known ?? (await where());
    const beganAt = performance.now();
    let response: Response;
    try {
      response = await fetch(endpoint.url + prepared.path, {
        ...prepared.init,
        headers: {
          ...prepared.headers,
          [wireHeader]: String(wireVersion),
          ...headers,
          ...(endpoint.token !== undefined && { authorization: `Bearer ${endpoint.token}` }),
        },
        signal: controller.signal,
      });
    } catch (error) {
      controller.signal.throwIfAborted();
      const thrown = prepared.bodyError();
      if (thrown) throw thrown.error;
      known = undefined;
      // A stream that has been given to fetch cannot be given again, whatever became of it.
      return { ...lostBy(error), beganAt, ...(!prepared.replayable && { sent: true }) };
    }
    if (response.ok) {
      answered = true;
      return response;
    }
    const refusal = await readRefusal(prepared.verb, response, endpoint.url);
    if ("lost" in refusal) {
      known = undefined;
      return refusal;
    }
    answered = true;
    if (refusal.code === "UNAUTHORIZED" && prepared.replayable && (await tokenChanged(endpoint))) {
      return attempt(prepared, controller, headers);
    }
    throw refusal;
  }

  /** While a daemon restarts nothing may say where it is: then it is looked for where it was. */
  async function where(): Promise<Endpoint> {
    try {
      last = await find();
    } catch (error) {
      if (!last) throw error;
    }
    return (known = last);
  }

  /** A daemon that was started anew may have written a new token. */
  async function tokenChanged(endpoint: Endpoint): Promise<boolean> {
    return (await where()).token !== endpoint.token;
  }

  function newOutage(): Outage {
    return outage(
      () => last?.url ?? "its address",
      () => (answered ? patience.giveUpMs : Math.min(patience.firstContactMs, patience.giveUpMs)),
    );
  }
}

function asItIs(_: VerbName, response: Response): Promise<Response> {
  return Promise.resolve(response);
}

function aborted(reason: unknown): SandboxError {
  if (SandboxError.is(reason)) return reason;
  return new SandboxError("ABORTED", "Cannot go on: the call was aborted", { cause: reason });
}

function interrupted(verb: VerbName, lost: Lost): SandboxError {
  return new SandboxError("OPERATION_INTERRUPTED", `Cannot tell whether ${verb} was done: ${lost.lost}`, {
    suggestion: "Look at the state of the sandbox before trying again",
    operation: verb,
    cause: lost.cause,
  });
}
