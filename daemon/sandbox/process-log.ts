import type { IncomingMessage } from "node:http";
import type { ProcessEnd, ProcessSpec } from "../../protocol/agent.ts";
import { SandboxError } from "../../protocol/errors.ts";
import { type LogEntry, readLog } from "../link/log.ts";
import type { Run } from "./run.ts";

/** Where the agent has a process. */
export function processPath(id: string): string {
  return `/processes/${encodeURIComponent(id)}`;
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

/** The log of a process from `after` on: to its end, or to what is there now. */
export async function followProcess(
  run: Run,
  id: string,
  after: number,
  follow: boolean,
  signal: AbortSignal,
): Promise<AsyncGenerator<LogEntry>> {
  const response = await run.link.open(`${processPath(id)}/log`, { query: { after, follow }, signal });
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
      response = await run.link.open(`${processPath(id)}/log`, { query: { after: offset, follow: true }, signal });
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
