import type { IncomingMessage } from "node:http";
import { z } from "zod";
import { AgentProcess, type ProcessEnd, type ProcessSpec, SignalResult } from "../../protocol/agent.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { ExecRequest, ProcessInfo } from "../../protocol/process.ts";
import { type LogEntry, readLog } from "../link/log.ts";
import type { Call, ServeTable } from "./call.ts";
import { environmentOf } from "./environment.ts";
import { workspace } from "./paths.ts";
import { type NumberedEvent, parseEventId, toEvents } from "./process-events.ts";
import { AgentProcesses, type Run } from "./run.ts";

type Verb =
  | "exec"
  | "listProcesses"
  | "getProcess"
  | "followProcess"
  | "writeStdin"
  | "signalProcess"
  | "stopProcess"
  | "signalAll";

/** A few thousand processes, each with the beginning of its command. */
const listLimitBytes = 8 * 1024 * 1024;

/** Everything about processes: one primitive in the agent, one event type on the wire. */
export const processVerbs: ServeTable<Verb> = {
  async exec(run, { body }, call) {
    const after = resumeAt(run, call);
    const log = await openProcess(run, toSpec(run, body), after, call.signal);
    const about = { run: run.number, processId: body.processId, sessionId: sessionOf(body) };
    return toEvents(log, about);
  },

  async listProcesses(run) {
    if (!run) return { processes: [] };
    const options = { jsonLimitBytes: listLimitBytes };
    const { processes } = await run.link.call(AgentProcesses, "/processes", options);
    return { processes: processes.map((process) => toInfo(run, process)).filter((process) => process.background) };
  },

  async getProcess(run, { params, query }) {
    const live = requireRun(run, params.process, query.run);
    return toInfo(live, await live.link.call(AgentProcess, path(params.process)));
  },

  async followProcess(run, { params, query }, call) {
    const live = requireRun(run, params.process, query.run);
    const after = resumeAt(live, call);
    const follow = query.follow === "true";
    const log = await followProcess(live, params.process, after, follow, call.signal);
    return toEvents(log, { run: live.number, processId: params.process });
  },

  async writeStdin(run, { params, query, body }, call) {
    const live = requireRun(run, params.process, query.run);
    await live.link.call(z.object({}), `${path(params.process)}/stdin`, {
      method: "PUT",
      query: { end: query.end === "true" },
      body,
      signal: call.signal,
      answerWithinMs: false, // it waits until the program reads
    });
    return {};
  },

  async signalProcess(run, { params, query, body }) {
    const live = requireRun(run, params.process, query.run);
    return live.link.call(SignalResult, `${path(params.process)}/signal`, { method: "POST", json: body });
  },

  async stopProcess(run, { params, query, body }) {
    const live = requireRun(run, params.process, query.run);
    return live.link.call(z.object({}), `${path(params.process)}/stop`, { method: "POST", json: body });
  },

  async signalAll(run, { body }) {
    if (!run) return { signalled: 0 };
    return run.link.call(SignalResult, "/signal", { method: "POST", json: body });
  },
};

/** Starts a process, or attaches to the one with this id, and gives its log from `after` on. */
export async function openProcess(
  run: Run,
  spec: ProcessSpec,
  after: number,
  signal: AbortSignal,
): Promise<AsyncGenerator<LogEntry, void, undefined>> {
  run.noteCommand(spec.id, spec.note);
  const response = await run.link.open("/processes", { method: "POST", query: { after }, json: spec, signal });
  return readOn(run, spec.id, response, after, signal);
}

async function followProcess(run: Run, id: string, after: number, follow: boolean, signal: AbortSignal) {
  const response = await run.link.open(`${path(id)}/log`, { query: { after, follow }, signal });
  return follow ? readOn(run, id, response, after, signal) : readLog(response, after);
}

/** A lost connection to a living agent is taken up again where it broke, a few times: then something is really wrong. */
const reconnects = 3;

/** Reads a log to its end. When the run ends first, the run's end is the process's. */
async function* readOn(
  run: Run,
  id: string,
  first: IncomingMessage,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<LogEntry, void, undefined> {
  let response = first;
  let offset = after;
  for (let lost = 0; ; lost++) {
    try {
      for await (const entry of readLog(response, offset)) {
        offset = entry.after;
        yield entry.type === "ended" ? { ...entry, end: run.explain(entry.end) } : entry;
        if (entry.type === "ended") return;
      }
      throw new SandboxError("AGENT_UNREACHABLE", "Cannot read the log: it was cut off");
    } catch (error) {
      signal.throwIfAborted();
      if (!SandboxError.is(error, "AGENT_UNREACHABLE")) throw error;
      const end = await run.endIfDead();
      if (end) {
        yield { type: "ended", after: offset, end: endedWithRun(end.reason, end.at) };
        return;
      }
      if (lost === reconnects) throw error;
      response = await run.link.open(`${path(id)}/log`, { query: { after: offset, follow: true }, signal });
    }
  }
}

function endedWithRun(reason: string, endedAtMs: number): ProcessEnd {
  return {
    exitCode: 137,
    signal: "SIGKILL",
    reason: reason === "memory" ? "memory" : "stopped",
    endedAtMs,
    durationMs: 0,
    cpuTimeMs: 0,
    background: false,
  };
}

/** Most that a background process's log keeps; what users know from `startProcess`. */
const ringBytes = 1024 * 1024;

function toSpec(run: Run, request: ExecRequest): ProcessSpec {
  const session = request.session === null ? {} : { session: request.session };
  const command = request.argv ? { argv: request.argv, ...session } : { script: request.command ?? "", ...session };
  return {
    id: request.processId,
    command,
    env: environmentOf(run.record),
    ...(request.env && { callEnv: request.env }),
    ...(request.cwd !== undefined && { cwd: request.cwd }),
    defaultCwd: workspace,
    ...(request.user !== undefined && { user: request.user }),
    stdin: request.stdin,
    stderr: request.stderr,
    ...(request.background ? { mode: "roll" as const, ringBytes } : { mode: "keep" as const }),
    ...(request.timeoutMs !== undefined && { timeoutMs: request.timeoutMs }),
    note: { command: shorten(request.command ?? request.argv?.join(" ") ?? ""), background: request.background },
  };
}

/** What lists and the journal show of a command; the whole text may be megabytes. */
function shorten(command: string): string {
  return command.length <= 1_000 ? command : `${command.slice(0, 999)}…`;
}

function sessionOf(request: ExecRequest): string | undefined {
  return request.command === undefined ? undefined : (request.session ?? undefined);
}

/** Where to go on behind the last event seen. An event of another run means that the process went with that run. */
function resumeAt(run: Run, call: Call): number {
  if (call.lastEventId === undefined || call.lastEventId === "") return 0;
  const seen = parseEventId(call.lastEventId);
  if (!seen) throw new SandboxError("VALIDATION_FAILED", `Cannot resume at "${call.lastEventId}": it is no event id`);
  if (seen.run === run.number) return seen.offset;
  throw new SandboxError("OPERATION_INTERRUPTED", "Cannot resume the command: the sandbox stopped while it ran", {
    details: { run: seen.run, currentRun: run.number },
    suggestion: "Run the command again",
  });
}

function requireRun(run: Run | undefined, process: string, wanted: number | undefined): Run {
  if (!run) {
    throw new SandboxError(
      "PROCESS_NOT_FOUND",
      `Cannot find process "${process}": the sandbox is asleep, no process runs`,
    );
  }
  if (wanted === undefined || wanted === run.number) return run;
  throw new SandboxError(
    "STALE_HANDLE",
    `Cannot reach process "${process}": it belongs to run ${wanted} of the sandbox, which has ended`,
    {
      details: { run: wanted, currentRun: run.number },
      suggestion: "Start the process again and use the new handle",
    },
  );
}

function path(process: string): string {
  return `/processes/${encodeURIComponent(process)}`;
}

function toInfo(run: Run, process: AgentProcess): ProcessInfo {
  const { command, background } = process.note ?? {};
  return {
    id: process.id,
    pid: process.pid,
    command: typeof command === "string" ? command : "",
    background: background === true,
    status: statusOf(process.end),
    startTime: process.startedAtMs,
    ...(process.end && { endTime: process.end.endedAtMs, exitCode: process.end.exitCode }),
    ...(process.end?.signal !== undefined && { signal: process.end.signal }),
    run: run.number,
  };
}

function statusOf(end: ProcessEnd | undefined): ProcessInfo["status"] {
  if (!end) return "running";
  if (end.signal !== undefined || end.reason !== undefined) return "killed";
  return end.exitCode === 0 ? "completed" : "failed";
}

export type { NumberedEvent };
