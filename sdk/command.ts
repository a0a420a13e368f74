import { SandboxError } from "../protocol/errors.ts";
import type { ProcessEvent } from "../protocol/process.ts";
import { bytesToBase64, sendable, textToBytes, type Content } from "./bytes.ts";
import type { CallOf } from "./call.ts";
import { nullForUndefined } from "./config.ts";
import type { ExecOptions } from "./exec-options.ts";
import type { Arrived } from "./follow-events.ts";
import { randomId, type Scope } from "./scope.ts";

/** What is run: a text for the session's shell, or a program with its arguments. */
export type Command = { command: string } | { argv: readonly string[] };

/** The command in one line, for people. */
export function shown(command: Command): string {
  return "command" in command ? command.command : command.argv.join(" ");
}

/**
 * After an abort, how long to wait for the start of a command whose request is under way, to stop it then: a sandbox that
 * has to wake takes well under a second.
 */
const startAfterAbortMs = 10_000;

/** A command whose events somebody has, up to `lastId`. */
export type Resumed = { process: string; lastId: string };

/** The id by which a reader of a command's events comes back to it. */
export function toPublicId(process: string, id: string): string {
  return `${process}.${id}`;
}

/** Undefined for a reader that has nothing yet. */
export function fromPublicId(id: string | null | undefined): Resumed | undefined {
  if (id === undefined || id === null || id === "") return undefined;
  const [, process, lastId] = /^([A-Za-z0-9_-]{1,64})\.(\d{1,15}-\d{1,15})$/.exec(id) ?? [];
  if (process !== undefined && lastId !== undefined) return { process, lastId };
  throw new SandboxError("VALIDATION_FAILED", "Cannot go on behind this lastEventId: it is none of a command's events");
}

/**
 * Starts a command and follows it to its end, or goes on following one. The process's id is chosen here, so a request that is repeated after a loss
 * attaches to the same process: nothing runs twice. Input is written and an abort is passed on meanwhile.
 */
export async function* runCommand(
  scope: Scope,
  command: Command,
  options: ExecOptions,
  resumed?: Resumed,
): AsyncGenerator<Arrived<ProcessEvent>> {
  const { signal } = options;
  requireNotAborted(signal);
  const ready = scope.ready();
  if (ready) {
    await ready;
    requireNotAborted(signal);
  }
  const process = { sandbox: scope.sandbox, process: resumed?.process ?? randomId() };
  const giveUp = new AbortController();
  let input: AbortController | undefined;
  let started = false;
  let inputError: { error: unknown } | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function stop(reason: "aborted" | "killed"): void {
    scope.transport.json("stopProcess", { params: process, body: { reason } }).catch((error: unknown) => {
      if (!hasEnded(error)) giveUp.abort(error);
    });
  }
  function onAbort(): void {
    if (started) stop("aborted");
    else timer = setTimeout(() => giveUp.abort(neverStarted(signal)), startAfterAbortMs);
  }
  async function begin(): Promise<void> {
    started = true;
    clearTimeout(timer);
    if (signal?.aborted) stop("aborted");
    if (resumed || options.stdin === undefined || isInline(options.stdin)) return; // who comes back has given it
    input = new AbortController();
    try {
      await writeInput(scope, process, options.stdin, input.signal);
    } catch (error) {
      if (hasEnded(error) || input.signal.aborted) return;
      inputError = { error };
      stop("killed");
    }
  }

  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const call: CallOf<"exec"> = {
      params: { sandbox: scope.sandbox },
      body: requestOf(process.process, command, scope.session, options),
    };
    const events = scope.transport.events("exec", call, { signal: giveUp.signal, lastId: resumed?.lastId });
    for await (const arrived of events) {
      if (arrived.event.type === "start") {
        if (started) continue; // told again to a reader that came back
        void begin();
      }
      if (arrived.event.type === "complete" && inputError) throw inputError.error;
      yield arrived;
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    input?.abort();
  }
}

function requireNotAborted(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new SandboxError("ABORTED", "Cannot run the command: the signal was aborted before it began", {
    cause: signal.reason,
  });
}

function neverStarted(signal: AbortSignal | undefined): SandboxError {
  const why = `aborted, and it is not known to have begun within ${startAfterAbortMs / 1_000} s`;
  return new SandboxError("ABORTED", `Cannot run the command: ${why}`, { cause: signal?.reason });
}

/** Whether an error only says that the process, or its reading, has come to its end. */
function hasEnded(error: unknown): boolean {
  return SandboxError.is(error, "PROCESS_NOT_FOUND") || SandboxError.is(error, "STALE_HANDLE");
}

function requestOf(
  processId: string,
  command: Command,
  session: string | null,
  options: ExecOptions,
): CallOf<"exec">["body"] {
  const { cwd, env, timeout, user, stdin, stderr } = options;
  return {
    processId,
    ...("command" in command ? command : { argv: [...command.argv] }),
    session,
    ...(cwd !== undefined && { cwd }),
    ...(env && { env: nullForUndefined(env) }),
    ...(timeout !== undefined && { timeoutMs: timeout }),
    ...(user !== undefined && { user }),
    ...(stdin !== undefined && { stdin: isInline(stdin) ? { base64: base64Of(stdin) } : "pipe" }),
    ...(stderr !== undefined && { stderr }),
  };
}

/**
 * Input up to this size goes with the request; more is written while the command reads, because a request's JSON is held
 * in memory on its whole way.
 */
const inlineLimit = 64 * 1024;

function isInline(stdin: Content): stdin is string | Uint8Array | ArrayBuffer {
  if (typeof stdin === "string") return stdin.length <= inlineLimit;
  return (stdin instanceof Uint8Array || stdin instanceof ArrayBuffer) && stdin.byteLength <= inlineLimit;
}

function base64Of(stdin: string | Uint8Array | ArrayBuffer): string {
  if (typeof stdin === "string") return bytesToBase64(textToBytes(stdin));
  return bytesToBase64(stdin instanceof Uint8Array ? stdin : new Uint8Array(stdin));
}

async function writeInput(
  scope: Scope,
  params: CallOf<"writeStdin">["params"],
  stdin: Content,
  signal: AbortSignal,
): Promise<void> {
  const body = await sendable(stdin);
  await scope.transport.json("writeStdin", { params, query: { end: "true" }, body }, signal);
}
