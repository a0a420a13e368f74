import { z } from "zod";
import { AgentProcess, type ProcessSpec, SignalResult } from "../../protocol/agent.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { ExecRequest } from "../../protocol/process.ts";
import type { LogEntry } from "../link/log.ts";
import type { Call, ServeTable } from "./call.ts";
import type { Machines } from "./machines.ts";
import { waitForPort } from "./port-wait.ts";
import { lifeOf, type NumberedEvent, parseEventId, type Place, toEvents } from "./process-events.ts";
import { followProcess, openProcess, processPath as path } from "./process-log.ts";
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

    getProcess(run, { params: { process }, query }) {
      return inRun(run, process, query.run, async (live) => {
        return (await findProcess(live, process)) ?? requireInfo(live, process);
      });
    },

    followProcess(run, { params: { process }, query }, call) {
      return inRun(run, process, query.run, async (live) => {
        call.letGo();
        const place = resumeAt(live, call);
        if (place) await requireLife(live, process, place);
        const quiet = query.output === "false";
        const after = place?.offset ?? (quiet ? (await describe(live, process)).offset : query.after);
        const log = await followProcess(live, process, after, query.follow === "true", call.signal);
        const about = { run: live.number, processId: process, background: true };
        return touching(live, toEvents(quiet ? withoutOutput(log) : log, about));
      });
    },

    waitForPort(run, { params: { process }, query }, call) {
      return inRun(run, process, query.run, (live) => waitForPort(live, process, query, call.signal));
    },

    async cleanProcesses(run) {
      if (!run) return { removed: 0 };
      const ended = (await run.listProcesses()).filter((process) => isBackground(process) && process.end);
      const own = ended.filter(({ id }) => run.services.restartOf(id) === undefined);
      const removals = own.map(({ id }) => run.link.call(z.object({}), path(id), { method: "DELETE" }));
      const outcomes = await Promise.allSettled(removals);
      return { removed: outcomes.filter(({ status }) => status === "fulfilled").length };
    },

    writeStdin(run, { params: { process }, query, body }, call) {
      return inRun(run, process, query.run, (live) =>
        live.link.call(z.object({}), `${path(process)}/stdin`, {
          method: "PUT",
          query: { end: query.end === "true" },
          body,
          signal: call.signal,
          answerWithinMs: false, // it waits until the program reads
        }),
      );
    },

    async signalProcess(run, { params, query, body: { signal } }) {
      const ending = isEnding(signal);
      if (!run && ending && query.run === undefined && forgetAsleep(params)) return { signalled: 0 };
      const send = (live: Run) =>
        live.link.call(SignalResult, `${path(params.process)}/signal`, { method: "POST", json: { signal } });
      return inRun(run, params.process, query.run, (live) =>
        ending ? endService(live, params.process, send, { signalled: 0 }) : send(live),
      );
    },

    async stopProcess(run, { params, query, body }) {
      if (!run && query.run === undefined && forgetAsleep(params)) return {};
      const send = (live: Run) =>
        live.link.call(z.object({}), `${path(params.process)}/stop`, { method: "POST", json: body });
      return inRun(run, params.process, query.run, (live) => endService(live, params.process, send, {}));
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
      const left = await run.link.call(SignalResult, "/signal", { method: "POST", json: { signal, leftBehind: true } });
      const running = (await run.listProcesses()).filter((process) => isBackground(process) && !process.end);
      const signals = running.map(({ id }) =>
        run.link.call(SignalResult, `${path(id)}/signal`, { method: "POST", json }),
      );
      const outcomes = await Promise.allSettled(signals); // one that has just ended is none that could be signalled
      const ended = outcomes.filter((one) => one.status === "fulfilled" && one.value.signalled > 0);
      return { signalled: ended.length + left.signalled };
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

/**
 * Does something in the run that a handle means, once its services have been started: one of them may be meant. A run that
 * ends meanwhile is one that has ended.
 */
async function inRun<T>(
  run: Run | undefined,
  process: string,
  wanted: number | undefined,
  work: (run: Run) => Promise<T>,
): Promise<T> {
  if (wanted !== undefined && wanted !== run?.number) throw stale(process, wanted, run?.number);
  if (!run) throw asleep(process);
  try {
    await run.services.begun();
    return await work(run);
  } catch (error) {
    if (!SandboxError.is(error, "AGENT_UNREACHABLE") || !(await run.endIfDead())) throw error;
    throw wanted === undefined ? asleep(process) : stale(process, wanted, undefined);
  }
}

function stale(process: string, run: number, currentRun: number | undefined): SandboxError {
  return new SandboxError(
    "STALE_HANDLE",
    `Cannot reach process "${process}": it belongs to run ${run} of the sandbox, which has ended`,
    {
      details: { run, ...(currentRun !== undefined && { currentRun }) },
      suggestion: "Start the process again and use the new handle",
    },
  );
}

function asleep(process: string): SandboxError {
  return new SandboxError(
    "PROCESS_NOT_FOUND",
    `Cannot find process "${process}": the sandbox is asleep, no process runs`,
  );
}

/** Ends a process that may be a service, which may be about to be started: then there is nobody to tell. */
async function endService<T>(run: Run, id: string, send: (run: Run) => Promise<T>, nobody: T): Promise<T> {
  const wasService = run.services.restartOf(id) !== undefined;
  run.services.forget(id);
  try {
    return await send(run);
  } catch (error) {
    if (wasService && SandboxError.is(error, "PROCESS_NOT_FOUND")) return nobody;
    throw error;
  }
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
