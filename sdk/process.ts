import { SandboxError } from "../protocol/errors.ts";
import type { ProcessEvent } from "../protocol/process.ts";
import type { CallOf } from "./call.ts";
import { nullForUndefined } from "./config.ts";
import type { Arrived } from "./follow-events.ts";
import { textOutput } from "./output.ts";
import { ProcessHandle } from "./process-handle.ts";
import type { Process, StartProcessOptions } from "./process-types.ts";
import { randomId, type Scope } from "./scope.ts";

/** Starts a process in the background. Contract: SessionMethods.startProcess. */
export async function startProcess(scope: Scope, command: string, options: StartProcessOptions): Promise<Process> {
  try {
    await scope.ready();
    const call: CallOf<"exec"> = { params: { sandbox: scope.sandbox }, body: requestOf(scope, command, options) };
    const events = scope.transport.events("exec", call);
    const first = await events.next();
    if (first.done || first.value.event.type !== "start") throw neverStarted(command);
    const { processId, pid, run, timestamp } = first.value.event;
    const restart = options.restart ?? "never";
    const startTime = Date.parse(timestamp);
    const handle = new ProcessHandle(scope, {
      id: processId,
      pid,
      command,
      status: "running",
      startTime,
      run,
      restart,
    });
    options.onStart?.(handle);
    if (options.onOutput || options.onExit || options.onError) void follow(handle, events, options);
    else void events.return(undefined);
    return handle;
  } catch (error) {
    options.onError?.(asError(error));
    throw error;
  }
}

function requestOf(scope: Scope, command: string, options: StartProcessOptions): CallOf<"exec">["body"] {
  const { cwd, env, timeout, user, restart } = options;
  return {
    processId: options.processId ?? randomId().slice(0, 16),
    // one for each call: a request that is repeated after a loss is the same start, a later call another one
    attempt: randomId(),
    command,
    session: scope.session,
    ...(cwd !== undefined && { cwd }),
    ...(env && { env: nullForUndefined(env) }),
    ...(timeout !== undefined && { timeoutMs: timeout }),
    ...(user !== undefined && { user }),
    ...(restart !== undefined && { restart }),
    stdin: "pipe",
    background: true,
  };
}

function neverStarted(command: string): SandboxError {
  return new SandboxError("INTERNAL_ERROR", `Cannot tell whether ${JSON.stringify(command)} started: no event said so`);
}

/**
 * Calls back with what happens, until the end. What keeps it from that goes to onError, or to nobody: the process goes on, and
 * whoever asks for it is told. What a callback throws goes there too, or is an unhandled rejection.
 */
async function follow(
  handle: ProcessHandle,
  events: AsyncGenerator<Arrived<ProcessEvent>>,
  { onOutput, onExit, onError }: StartProcessOptions,
): Promise<void> {
  const streams = { stdout: textOutput(0), stderr: textOutput(0) };
  try {
    for await (const { event } of events) {
      if (event.type === "stdout" || event.type === "stderr") {
        const piece = streams[event.type].add(event);
        if (piece !== "") await onOutput?.(event.type, piece);
      }
      if (event.type !== "complete") continue;
      handle.learnEnd(event);
      onExit?.(event.exitCode);
    }
  } catch (error) {
    if (onError) onError(asError(error));
    else if (!SandboxError.is(error)) throw error;
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

export async function listProcesses(scope: Scope): Promise<Process[]> {
  const { processes } = await scope.transport.json("listProcesses", { params: { sandbox: scope.sandbox } });
  return processes.map((info) => new ProcessHandle(scope, info));
}

/** Contract: SessionMethods.getProcess. */
export async function getProcess(scope: Scope, id: string): Promise<Process | null> {
  const params = { sandbox: scope.sandbox, process: id };
  try {
    return new ProcessHandle(scope, await scope.transport.json("getProcess", { params }));
  } catch (error) {
    if (SandboxError.is(error, "PROCESS_NOT_FOUND") || SandboxError.is(error, "SANDBOX_NOT_FOUND")) return null;
    throw error;
  }
}

export async function killProcess(scope: Scope, id: string, signal = "SIGTERM"): Promise<void> {
  const params = { sandbox: scope.sandbox, process: id };
  await scope.transport.json("signalProcess", { params, body: { signal } });
}

export async function killAllProcesses(scope: Scope): Promise<number> {
  const params = { sandbox: scope.sandbox };
  return (await scope.transport.json("signalAll", { params, body: { background: true } })).signalled;
}

export async function cleanupCompletedProcesses(scope: Scope): Promise<number> {
  const params = { sandbox: scope.sandbox };
  return (await scope.transport.json("cleanProcesses", { params })).removed;
}
