import { SandboxError, type ErrorBody } from "../protocol/errors.ts";
import type { ProcessEvent, ProcessInfo } from "../protocol/process.ts";
import { sendable, type Content } from "./bytes.ts";
import type { CallOf } from "./call.ts";
import { deadline } from "./deadline.ts";
import { findLine } from "./find-line.ts";
import type { Arrived } from "./follow-events.ts";
import { readLogs } from "./process-logs.ts";
import type { LogMatch, LogRange, Process, ProcessLogs, ProcessStatus, WaitForPortOptions } from "./process-types.ts";
import type { Scope } from "./scope.ts";

/** A line without an end is taken for whole after this: the rest of one that is cut by a pipe follows at once. */
const quietMs = 200;

/** The daemon tells a timeout with what is listened on; a daemon that cannot be reached tells nothing. */
const timeoutGraceMs = 2_000;

type Known = Pick<ProcessInfo, "id" | "pid" | "command" | "status" | "startTime" | "run"> & Partial<ProcessInfo>;

/** Process at run time; its contract is the interface. The fields are plain ones, so that JSON shows them. */
export class ProcessHandle implements Process {
  readonly id: string;
  pid = 0;
  command = "";
  status: ProcessStatus = "starting";
  startTime = new Date(0);
  endTime?: Date;
  exitCode?: number;
  restart?: "wake" | "on-failure";
  error?: ErrorBody;
  readonly #scope: Scope;
  readonly #run: number;
  #written: Promise<unknown> = Promise.resolve();

  constructor(scope: Scope, known: Known) {
    this.#scope = scope;
    this.id = known.id;
    this.#run = known.run;
    this.learn(known);
  }

  /** Takes over what the daemon has told. */
  learn({ pid, command, status, startTime, endTime, exitCode, restart, error }: Known): void {
    this.pid = pid;
    this.command = command;
    this.status = status;
    this.startTime = new Date(startTime);
    if (endTime !== undefined) this.endTime = new Date(endTime);
    if (exitCode !== undefined) this.exitCode = exitCode;
    if (restart !== undefined && restart !== "never") this.restart = restart;
    else delete this.restart;
    if (error !== undefined) this.error = error;
  }

  /** Takes over how it ended. */
  learnEnd({ result }: Extract<ProcessEvent, { type: "complete" }>): void {
    this.exitCode = result.exitCode;
    this.endTime = new Date(result.endedAtMs);
    const killed = result.signal !== undefined || result.reason !== undefined;
    this.status = killed ? "killed" : result.exitCode === 0 ? "completed" : "failed";
  }

  async kill(signal = "SIGTERM"): Promise<void> {
    await this.#scope.transport.json("signalProcess", { ...this.#call, body: { signal } });
  }

  async getStatus(): Promise<ProcessStatus> {
    this.learn(await this.#scope.transport.json("getProcess", this.#call));
    return this.status;
  }

  getLogs(range: LogRange = {}): Promise<ProcessLogs> {
    return readLogs(this.#scope, this.id, range, this.#run);
  }

  write(data: Content): Promise<void> {
    return this.#write(data, "false");
  }

  closeStdin(): Promise<void> {
    return this.#write(new Uint8Array(0), "true");
  }

  async waitForLog(pattern: string | RegExp, timeout?: number): Promise<LogMatch> {
    const finder = findLine(pattern);
    const limit = deadline(timeout, (ms) => {
      const words = `Cannot see ${shown(pattern)} in what process "${this.id}" prints within ${ms} ms`;
      return notReady(words, { processId: this.id, output: finder.lastLines().join("\n") });
    });
    const events = this.#follow({}, limit.signal);
    try {
      let next = events.next();
      next.catch(() => {}); // thrown where it is waited for; nobody does after the end
      for (;;) {
        const step = await within(next, finder.hasOpen() ? quietMs : undefined);
        const found = step ? this.#look(finder, step) : finder.lookAtOpen();
        if (found) return found;
        if (!step) continue;
        next = events.next();
        next.catch(() => {});
      }
    } finally {
      limit.end();
      void events.return(undefined);
    }
  }

  async waitForExit(timeout?: number): Promise<{ exitCode: number; signal?: string }> {
    const limit = deadline(timeout, (ms) =>
      notReady(`Cannot see the end of process "${this.id}" within ${ms} ms: it still runs`, { processId: this.id }),
    );
    try {
      for await (const { event } of this.#follow({ output: "false" }, limit.signal)) {
        if (event.type !== "complete") continue;
        this.learnEnd(event);
        const { exitCode, signal } = event.result;
        return { exitCode, ...(signal !== undefined && { signal }) };
      }
    } finally {
      limit.end();
    }
    throw endless(this.id);
  }

  async waitForPort(port: number, options: WaitForPortOptions = {}): Promise<void> {
    const { mode, path, status, timeout, interval } = options;
    const range = typeof status === "number" ? { min: status, max: status } : (status ?? {});
    const query = {
      run: this.#run,
      port,
      ...(mode !== undefined && { mode }),
      ...(path !== undefined && { path }),
      ...(range.min !== undefined && { minStatus: range.min }),
      ...(range.max !== undefined && { maxStatus: range.max }),
      ...(timeout !== undefined && { timeoutMs: timeout }),
      ...(interval !== undefined && { intervalMs: interval }),
    };
    const limit = deadline(timeout === undefined ? undefined : timeout + timeoutGraceMs, () =>
      notReady(`Cannot see port ${port} of process "${this.id}" ready within ${timeout} ms`, {
        processId: this.id,
        port,
      }),
    );
    try {
      const call = { params: this.#call.params, query } as CallOf<"waitForPort">;
      for await (const { event } of this.#scope.transport.events("waitForPort", call, { signal: limit.signal })) {
        if (event.type === "complete") return;
      }
    } finally {
      limit.end();
    }
    throw endless(this.id);
  }

  #look(finder: ReturnType<typeof findLine>, step: IteratorResult<Arrived<ProcessEvent>>): LogMatch | undefined {
    if (step.done) throw endless(this.id);
    const { event } = step.value;
    switch (event.type) {
      case "stdout":
      case "stderr":
        return finder.add(event.type, event);
      case "truncated":
        finder.gap();
        return undefined;
      case "complete": {
        const found = finder.lookAtOpen();
        if (found) return found;
        this.learnEnd(event);
        throw exitedBefore(this.id, event.result, finder.lastLines());
      }
      case "start":
      case "caught-up":
      case "error": // thrown by the transport
        return undefined;
    }
  }

  get #call() {
    return { params: { sandbox: this.#scope.sandbox, process: this.id }, query: { run: this.#run } };
  }

  #follow(query: { output?: "false" }, signal: AbortSignal): AsyncGenerator<Arrived<ProcessEvent>> {
    const { params } = this.#call;
    const call: CallOf<"followProcess"> = { params, query: { run: this.#run, ...query } };
    return this.#scope.transport.events("followProcess", call, { signal });
  }

  #write(data: Content, end: "true" | "false"): Promise<void> {
    const send = async () => {
      const { params } = this.#call;
      const body = await sendable(data);
      await this.#scope.transport.json("writeStdin", { params, query: { run: this.#run, end }, body });
    };
    const sent = this.#written.then(send, send);
    this.#written = sent;
    return sent;
  }
}

function shown(pattern: string | RegExp): string {
  return typeof pattern === "string" ? JSON.stringify(pattern) : String(pattern);
}

function notReady(words: string, details: Record<string, unknown>): SandboxError {
  return new SandboxError("PROCESS_READY_TIMEOUT", words, { details });
}

function exitedBefore(
  id: string,
  end: { exitCode: number; signal?: string | undefined },
  lines: string[],
): SandboxError {
  const output = lines.join("\n");
  const how = end.signal === undefined ? `with exit code ${end.exitCode}` : `by ${end.signal}`;
  const words = output === "" ? "It printed nothing" : `It printed last:\n${output}`;
  return new SandboxError(
    "PROCESS_EXITED_BEFORE_READY",
    `Cannot see the line that was waited for: process "${id}" ended ${how}. ${words}`,
    { details: { processId: id, exitCode: end.exitCode, ...(end.signal && { signal: end.signal }), output } },
  );
}

function endless(id: string): SandboxError {
  return new SandboxError("INTERNAL_ERROR", `Cannot follow process "${id}": its events stopped without an end`);
}

/** The next value, or undefined when it takes longer. */
async function within<T>(next: Promise<T>, limitMs: number | undefined): Promise<T | undefined> {
  if (limitMs === undefined) return next;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), limitMs)));
  try {
    return await Promise.race([next, late]);
  } finally {
    clearTimeout(timer);
  }
}
