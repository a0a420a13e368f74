import type { JsonOutput, JsonVerb } from "../protocol/verbs.ts";
import type { CallOf } from "./call.ts";
import type { Transport } from "./transport.ts";

/** What every call of a sandbox or a session needs to know. */
export type Scope = {
  transport: Transport;
  /** The sandbox's id. */
  sandbox: string;
  /** The session whose state commands start from; null: none, each starts fresh. */
  session: string | null;
  /** The session whose directory relative paths start at. */
  directory: string;
  /** Tells the daemon the sandbox's options, once. Undefined when there is nothing to wait for. */
  ready(): Promise<void> | undefined;
};

/** Verbs whose only parameter is the sandbox. */
type SandboxVerb = {
  [V in JsonVerb]: { sandbox: string } extends CallOf<V>["params"] ? V : never;
}[JsonVerb];

/** A JSON verb of the scope's sandbox, after its options are known. */
export async function callIn<V extends SandboxVerb>(
  scope: Scope,
  verb: V,
  call: Omit<CallOf<V>, "params">,
): Promise<JsonOutput<V>> {
  await scope.ready();
  return scope.transport.json(verb, { params: { sandbox: scope.sandbox }, ...call } as unknown as CallOf<V>);
}

/** A random id: 16 bytes in hex, so that nobody else has or guesses it. */
export function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function now(): string {
  return new Date().toISOString();
}
