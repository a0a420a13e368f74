import type { AgentProcess, ProcessEnd } from "../../protocol/agent.ts";
import type { ProcessInfo } from "../../protocol/process.ts";
import { shorten } from "./process-spec.ts";
import type { Run } from "./run.ts";

/** Whether a process is one of `startProcess`, not the command of an exec. */
export function isBackground({ note }: AgentProcess): boolean {
  return note?.["background"] === true;
}

/** What is known of a process, as users see it. */
export function toInfo(run: Run, process: AgentProcess): ProcessInfo {
  const { id, pid, note, end, offset } = process;
  const command = note?.["command"];
  const restart = run.services.restartOf(id);
  return {
    id,
    pid,
    command: typeof command === "string" ? command : "",
    background: isBackground(process),
    status: statusOf(end),
    ...(restart && { restart }),
    startTime: process.startedAtMs,
    ...(end && { endTime: end.endedAtMs, exitCode: end.exitCode }),
    ...(end?.signal !== undefined && { signal: end.signal }),
    run: run.number,
    offset,
  };
}

/** A service that could not be started, so that no agent knows of it. */
export function toInfoOfFailed(run: Run, id: string): ProcessInfo | undefined {
  const failure = run.services.failureOf(id);
  const service = failure && run.services.list().find((one) => one.id === id);
  if (!service) return undefined;
  const { command, argv } = service.request;
  return {
    id,
    pid: 0,
    command: shorten(command ?? argv?.join(" ") ?? ""),
    background: true,
    status: "error",
    restart: service.restart,
    startTime: failure.atMs,
    endTime: failure.atMs,
    error: failure.error,
    run: run.number,
    offset: 0,
  };
}

function statusOf(end: ProcessEnd | undefined): ProcessInfo["status"] {
  if (!end) return "running";
  if (end.signal !== undefined || end.reason !== undefined) return "killed";
  return end.exitCode === 0 ? "completed" : "failed";
}
