import { SandboxError } from "../protocol/errors.ts";
import type { LifecycleEvent } from "../protocol/lifecycle.ts";
import { bind } from "./binding.ts";
import { hasCallbacks } from "./config.ts";
import type { Connection } from "./connection.ts";
import { getSandbox, type Sandbox, type SandboxNamespace } from "./sandbox.ts";
import { Turns } from "./turns.ts";

export type FollowLifecycleOptions = {
  /** Classes by the names under which sandboxes remember them: an app's `env`. */
  bindings: Record<string, SandboxNamespace>;
  /** Ends it: no callback begins afterwards. */
  signal: AbortSignal;
  /** Told what a callback threw, and when the daemon could not be followed; `where` is for people. */
  onCallbackError: (error: unknown, where: string) => void;
  /** Given each callback that begins, for a program that lets them end before it does. */
  waitUntil?: (callback: Promise<void>) => void;
};

/** Callbacks under way or waiting for their turn; what happens beyond them stays with the daemon. */
const pendingLimit = 256;

/** A callback may well run a build; one that takes longer than this hangs, and the next of its sandbox begins. */
const callbackLimitMs = 600_000;

/** Sandboxes whose object is kept between callbacks. */
const keptLimit = 1_000;

/** Pauses before the daemon is asked again, when even the transport has given it up. */
const firstPauseMs = 1_000;
const lastPauseMs = 30_000;

/**
 * Calls the callbacks of these classes (`onStart`, `onStop`, `onError`, `onActivityExpired`) until the signal aborts, for every
 * sandbox that was last used as one of them, also by another program. What happens while the connection or the daemon is gone is
 * told afterwards; what happened before this call is not.
 *
 * Resolves when what happens from then on is told, or after the first attempt has failed, of which `onCallbackError` was told: it
 * is then made again. Throws VALIDATION_FAILED for a name that cannot be a class's.
 */
export async function followLifecycle(options: FollowLifecycleOptions): Promise<void> {
  const { bindings, signal } = options;
  for (const [name, namespace] of Object.entries(bindings)) bind(namespace, name);
  const wanted = Object.entries(bindings).filter(([, namespace]) => wantsToKnow(namespace));
  const turns = new Turns(pendingLimit);
  await Promise.all(
    [...new Set(wanted.map(([, { connection }]) => connection))].map((connection) => {
      const classes = new Map(wanted.filter(([, namespace]) => namespace.connection === connection));
      const callbacks = new Callbacks(classes, options);
      const onEvent = (event: Told) =>
        turns.take(event.sandbox, async () => {
          if (!signal.aborted) await callbacks.call(event);
        });
      return follow(connection, [...classes.keys()], onEvent, options);
    }),
  );
}

function wantsToKnow(namespace: SandboxNamespace): boolean {
  if (hasCallbacks(namespace.sandboxClass.prototype as object)) return true;
  try {
    return hasCallbacks(getSandbox(namespace, "any")); // a callback may be a field
  } catch {
    return true; // of what cannot be made without its real id nobody knows; whoever makes one is told why
  }
}

/** An event about a sandbox. */
type Told = Extract<LifecycleEvent, { sandbox: string }>;

/** Follows in the background; resolves as followLifecycle does. */
function follow(
  { transport }: Connection,
  classes: string[],
  onEvent: (event: Told) => Promise<void>,
  { signal, onCallbackError }: FollowLifecycleOptions,
): Promise<void> {
  const call = { params: {}, query: { classes: classes.join(",") } };
  let lastId: string | undefined;
  let pauseMs = firstPauseMs;

  return new Promise((begun) => void goOnForEver(begun));

  async function goOn(begun: () => void): Promise<void> {
    for await (const { id, event } of transport.events("followLifecycle", call, { signal, lastId })) {
      lastId = id;
      pauseMs = firstPauseMs;
      if (event.type === "following") begun();
      else if (event.type !== "error") await onEvent(event);
    }
  }

  async function goOnForEver(begun: () => void): Promise<void> {
    while (!signal.aborted) {
      try {
        await goOn(begun);
      } catch (error) {
        // aborted, or the connection was closed
        if (signal.aborted || SandboxError.is(error, "ABORTED")) break;
        if (pauseMs === firstPauseMs) onCallbackError(error, `following the life of ${classes.join(", ")}`);
      }
      begun();
      await pause(pauseMs, signal);
      pauseMs = Math.min(pauseMs * 2, lastPauseMs);
    }
    begun();
  }
}

/** The callbacks of the classes of one connection. */
class Callbacks {
  readonly #classes: ReadonlyMap<string, SandboxNamespace>;
  readonly #options: FollowLifecycleOptions;
  /** By class and id, the longest unused first. */
  readonly #kept = new Map<string, Sandbox>();

  constructor(classes: ReadonlyMap<string, SandboxNamespace>, options: FollowLifecycleOptions) {
    this.#classes = classes;
    this.#options = options;
  }

  /** Calls what the event is for, and waits for it. */
  async call(event: Told): Promise<void> {
    switch (event.type) {
      case "start":
        return this.#guard(event, "onStart", (sandbox) => sandbox.onStart?.());
      case "startFailed":
        return this.#guard(event, "onError", (sandbox) => sandbox.onError?.(SandboxError.from(event.error)));
      case "activityExpired":
        return this.#guard(event, "onActivityExpired", (sandbox) => sandbox.onActivityExpired?.());
      case "stop": {
        const { exitCode, reason, error } = event;
        if (error) await this.#guard(event, "onError", (sandbox) => sandbox.onError?.(SandboxError.from(error)));
        return this.#guard(event, "onStop", (sandbox) => sandbox.onStop?.({ exitCode, reason }));
      }
    }
  }

  async #guard(event: Told, name: string, callback: (sandbox: Sandbox) => void | Promise<void>): Promise<void> {
    const { signal, onCallbackError, waitUntil } = this.#options;
    try {
      const work = (async () => callback(this.#sandboxOf(event)))();
      waitUntil?.(work);
      await within(callbackLimitMs, work, signal);
    } catch (error) {
      onCallbackError(error, `${name} of sandbox "${event.sandbox}" (${event.className})`);
    }
  }

  #sandboxOf({ className, sandbox: id }: Told): Sandbox {
    const key = `${className} ${id}`;
    const sandbox = this.#kept.get(key) ?? this.#make(className, id);
    this.#kept.delete(key);
    this.#kept.set(key, sandbox);
    if (this.#kept.size > keptLimit) this.#kept.delete(this.#kept.keys().next().value ?? "");
    return sandbox;
  }

  /** Its options are not told again: whoever made the sandbox may have given it others than its class's. */
  #make(className: string, id: string): Sandbox {
    const namespace = this.#classes.get(className);
    if (!namespace) throw new SandboxError("INTERNAL_ERROR", `Cannot call a callback: nobody asked for ${className}`);
    const { connection, sandboxClass } = namespace;
    return new sandboxClass({ connection, id, options: {}, className, followed: true, made: true });
  }
}

/** Settles as the work does, or rejects after `ms`. When the signal has aborted nobody counts, so that no timer holds a program that ends. */
function within(ms: number, work: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`it has not ended within ${ms / 60_000} minutes: the next one begins`));
    const timer = setTimeout(late, ms);
    const stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    };
    signal.addEventListener("abort", stop);
    void work.then(resolve, reject).finally(stop);
  });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    if (signal.aborted) return over();
    signal.addEventListener("abort", over, { once: true });
  });
}
