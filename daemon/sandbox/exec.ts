import type { IncomingMessage } from "node:http";
import { z } from "zod";
import { AgentProcess, type ProcessEnd, type ProcessSpec, SignalResult } from "../../protocol/agent.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { ExecRequest } from "../../protocol/process.ts";
import { type LogEntry, readLog } from "../link/log.ts";
import type { Call, ServeTable } from "./call.ts";
import type { Machines } from "./machines.ts";
import { waitForPort } from "./port-wait.ts";
import { lifeOf, type NumberedEvent, parseEventId, type Place, toEvents } from "./process-events.ts";
import { isBackground, toInfo, toInfoOfFailed } from "./process-info.ts";
import { toSpec } from "./process-spec.ts";
import type { Run } from "./run.ts";
import { isEnding } from "./service.ts";

type Verb =
  | "exec"
  | "listProcesses"
  | "getProcess"
  | "followProcess"
  | "waitForPort"
  | "cleanProcesses"
  | "writeStdin"
  | "signalProcess"
  | "stopProcess"
  | "signalAll";

/** Everything about processes: one primitive in the agent, one event type on the wire. */
export function processVerbs(machines: Machines): ServeTable<Verb> {
  return {
    async exec(run, { body }, call) {
      const { processId, background } = body;
      const about = { run: run.number, processId, sessionId: sessionOf(body), background };
      if (background) return touching(run, toEvents(await openInBackground(run, body, call), about));
      const after = resumeAt(run, call)?.offset ?? 0;
      return toEvents(await openProcess(run, toSpec(run.record, body), after, call.signal), about);
    },

    async listProcesses(run) {
      if (!run) return { processes: [] };
      await run.services.begun();
      const known = (await run.listProcesses()).filter(isBackground).map((process) => toInfo(run, process));
      const ids = new Set(known.map(({ id }) => id));
      const failed = run.services.list().flatMap(({ id }) => (ids.has(id) ? [] : (toInfoOfFailed(run, id) ?? [])));
      return { processes: [...known, ...failed] };
    },

    async getProcess(run, { params, query }) {
      const live = await reach(run, params.process, query.run);
      return (await findProcess(live, params.process)) ?? requireInfo(live, params.process);
    },

    async followProcess(run, { params: { process }, query }, call) {
      const live = await reach(run, process, query.run);
      call.letGo();
      const place = resumeAt(live, call);
      if (place) await requireLife(live, process, place);
      const quiet = query.output === "false";
      const after = place?.offset ?? (quiet ? (await describe(live, process)).offset : query.after);
      const log = await followProcess(live, process, after, query.follow === "true", call.signal);
      const about = { run: live.number, processId: process, background: true };
      return touching(live, toEvents(quiet ? withoutOutput(log) : log, about));
    },

    async waitForPort(run, { params: { process }, query }, call) {
      const live = await reach(run, process, query.run);
      return waitForPort(live, process, query, call.signal);
    },

    async cleanProcesses(run) {
      if (!run) return { removed: 0 };
      const ended = (await run.listProcesses()).filter((process) => isBackground(process) && process.end);
      const own = ended.filter(({ id }) => run.services.restartOf(id) === undefined);
      const removals = own.map(({ id }) => run.link.call(z.object({}), path(id), { method: "DELETE" }));
      const outcomes = await Promise.allSettled(removals);
      return { removed: outcomes.filter(({ status }) => status === "fulfilled").length };
    },

    async writeStdin(run, { params, query, body }, call) {
      const live = await reach(run, params.process, query.run);
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
      const ending = isEnding(body.signal);
      if (!run && ending && query.run === undefined && forgetAsleep(params)) return { signalled: 0 };
      const live = await reach(run, params.process, query.run);
      const wasService = live.services.restartOf(params.process) !== undefined;
      if (ending) live.services.forget(params.process);
      try {
        const json = { signal: body.signal };
        return await live.link.call(SignalResult, `${path(params.process)}/signal`, { method: "POST", json });
      } catch (error) {
        if (wasService && SandboxError.is(error, "PROCESS_NOT_FOUND")) return { signalled: 0 }; // it was to be started
        throw error;
      }
    },

    async stopProcess(run, { params, query, body }) {
      if (!run && query.run === undefined && forgetAsleep(params)) return {};
      const live = await reach(run, params.process, query.run);
      const wasService = live.services.restartOf(params.process) !== undefined;
      live.services.forget(params.process);
      try {
        return await live.link.call(z.object({}), `${path(params.process)}/stop`, { method: "POST", json: body });
      } catch (error) {
        if (wasService && SandboxError.is(error, "PROCESS_NOT_FOUND")) return {};
        throw error;
      }
    },

    async signalAll(run, { params, body: { signal, background } }) {
      if (!run) {
        if (isEnding(signal)) forgetAllAsleep(params.sandbox);
        return { signalled: 0 };
      }
      await run.services.begun();
      if (isEnding(signal)) run.services.forgetAll();
      const json = { signal };
      if (!background) return run.link.call(SignalResult, "/signal", { method: "POST", json });
      const running = (await run.listProcesses()).filter((process) => isBackground(process) && !process.end);
      const signals = running.map(({ id }) =>
        run.link.call(SignalResult, `${path(id)}/signal`, { method: "POST", json }),
      );
      const outcomes = await Promise.allSettled(signals); // one that has just ended is none that could be signalled
      return { signalled: outcomes.filter((one) => one.status === "fulfilled" && one.value.signalled > 0).length };
    },
  };

  /** Whether a service of a sandbox that sleeps was ended: it will not be there at the next wake. */
  function forgetAsleep({ sandbox, process }: { sandbox: string; process: string }): boolean {
    const record = machines.records.find(sandbox);
    return record !== undefined && machines.services.remove(record.key, process);
  }

  function forgetAllAsleep(sandbox: string): void {
    const record = machines.records.find(sandbox);
    if (record) machines.services.removeAll(record.key);
  }
}

/** A background process, started or attached to; from now on it is the service that the request makes of it, or none. */
async function openInBackground(run: Run, request: ExecRequest, call: Call): Promise<AsyncGenerator<LogEntry>> {
  call.letGo();
  await run.services.begun();
  const { processId: id } = request;
  const place = resumeAt(run, call);
  if (place) {
    await requireLife(run, id, place);
    return followProcess(run, id, place.offset, true, call.signal);
  }
  const spec = toSpec(run.record, request);
  const log = await openAttempt(run, spec, call.signal);
  run.services.adopt(request);
  return log;
}

/** A process that runs already is attached to where it is the same start; another one keeps its id. */
async function openAttempt(run: Run, spec: ProcessSpec, signal: AbortSignal): Promise<AsyncGenerator<LogEntry>> {
  try {
    return await openProcess(run, spec, 0, signal);
  } catch (error) {
    if (!SandboxError.is(error, "RESOURCE_BUSY")) throw error;
    const { note } = await describe(run, spec.id);
    if (note?.["start"] === spec.note?.["start"]) return openProcess(run, { ...spec, attempt: undefined }, 0, signal);
    throw new SandboxError("RESOURCE_BUSY", error.message, {
      details: { processId: spec.id },
      suggestion: "Kill it first, or choose another process id",
      cause: error,
    });
  }
}

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

async function followProcess(
  run: Run,
  id: string,
  after: number,
  follow: boolean,
  signal: AbortSignal,
): Promise<AsyncGenerator<LogEntry>> {
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

/** Where the log of a process is read by somebody for days, the run is used only when something comes. */
async function* touching(run: Run, events: AsyncIterable<NumberedEvent>): AsyncGenerator<NumberedEvent> {
  for await (const event of events) {
    run.activity.touch();
    yield event;
  }
}

async function* withoutOutput(log: AsyncIterable<LogEntry>): AsyncGenerator<LogEntry> {
  for await (const entry of log) if (entry.type === "started" || entry.type === "ended") yield entry;
}

function sessionOf(request: ExecRequest): string | undefined {
  return request.command === undefined ? undefined : (request.session ?? undefined);
}

/** Where to go on behind the last event seen. An event of another run means that the process went with that run. */
function resumeAt(run: Run, call: Call): Place | undefined {
  if (call.lastEventId === undefined || call.lastEventId === "") return undefined;
  const seen = parseEventId(call.lastEventId);
  if (!seen) throw new SandboxError("VALIDATION_FAILED", `Cannot resume at "${call.lastEventId}": it is no event id`);
  if (seen.run === run.number) return seen;
  throw new SandboxError("OPERATION_INTERRUPTED", "Cannot resume the command: the sandbox stopped while it ran", {
    details: { run: seen.run, currentRun: run.number },
    suggestion: "Run the command again",
  });
}

/** The id may belong to another process by now, whose log is another one. */
async function requireLife(run: Run, id: string, { life }: Place): Promise<void> {
  if (life === undefined || lifeOf((await describe(run, id)).startedAtMs) === life) return;
  throw new SandboxError("OPERATION_INTERRUPTED", `Cannot read on: process "${id}" ended and was started again`, {
    suggestion: "Read its log from the beginning",
  });
}

/** The run that a handle means, once its services have been started: one of them may be meant. */
async function reach(run: Run | undefined, process: string, wanted: number | undefined): Promise<Run> {
  if (wanted !== undefined && wanted !== run?.number) {
    throw new SandboxError(
      "STALE_HANDLE",
      `Cannot reach process "${process}": it belongs to run ${wanted} of the sandbox, which has ended`,
      {
        details: { run: wanted, ...(run && { currentRun: run.number }) },
        suggestion: "Start the process again and use the new handle",
      },
    );
  }
  if (!run) {
    throw new SandboxError(
      "PROCESS_NOT_FOUND",
      `Cannot find process "${process}": the sandbox is asleep, no process runs`,
    );
  }
  await run.services.begun();
  return run;
}

async function findProcess(run: Run, id: string) {
  try {
    return toInfo(run, await describe(run, id));
  } catch (error) {
    if (SandboxError.is(error, "PROCESS_NOT_FOUND")) return undefined;
    throw error;
  }
}

function requireInfo(run: Run, id: string) {
  const info = toInfoOfFailed(run, id);
  if (info) return info;
  throw new SandboxError(
    "PROCESS_NOT_FOUND",
    `Cannot find process "${id}": there is none, or it has ended and is no longer kept`,
  );
}

function describe(run: Run, id: string): Promise<AgentProcess> {
  return run.link.call(AgentProcess, path(id));
}

function path(process: string): string {
  return `/processes/${encodeURIComponent(process)}`;
}
