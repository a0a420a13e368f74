import { z } from "zod";
import { AgentProcess, type ProcessSpec } from "../../protocol/agent.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { CreateTerminal, TerminalInfo } from "../../protocol/terminal.ts";
import { unreachable } from "../link/connect.ts";
import { readLog } from "../link/log.ts";
import type { ServeTable } from "./call.ts";
import { environmentOf } from "./environment.ts";
import { workspace } from "./paths.ts";
import { shorten } from "./process-spec.ts";
import type { Run } from "./run.ts";

/** What a viewer that comes later sees of what was printed before: some thousand lines. */
const replayBytes = 256 * 1024;

/** In an image without bash, what every image has. */
const anyShell = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"];

/** A terminal is a process of the agent, with a ring for its log. The daemon holds nothing of it, so it outlives the daemon. */
export const terminalVerbs: ServeTable<"createTerminal" | "listTerminals" | "closeTerminal"> = {
  async createTerminal(run, { body }, { signal }) {
    const { terminal } = await openTerminal(run, body, signal);
    return toInfo(run, body.id, terminal);
  },

  async listTerminals(run) {
    const known = run ? await run.listProcesses() : [];
    return {
      terminals: known.flatMap((process) => {
        const id = process.note?.["terminal"];
        return run && typeof id === "string" ? [toInfo(run, id, process)] : [];
      }),
    };
  },

  async closeTerminal(run, { params }) {
    const path = pathOf(params.terminal);
    if (!run || !(await findTerminal(run, params.terminal))) throw notFound(params.terminal);
    // a shell that waits for its user passes SIGTERM over
    await run.link.call(z.object({}), `${path}/signal`, { method: "POST", json: { signal: "SIGHUP" } });
    return run.link.call(z.object({}), `${path}/stop`, { method: "POST", json: { reason: "killed" } });
  },
};

/** `begun`: just now, for whoever asked. */
export type Reached = { terminal: AgentProcess; begun: boolean };

/** The terminal with this id if one runs, else a new one. */
export async function openTerminal(run: Run, request: CreateTerminal, signal: AbortSignal): Promise<Reached> {
  const spec = toSpec(run, request);
  let begun = true;
  try {
    run.noteCommand(spec.id, spec.note);
    const log = readLog(await run.link.open("/processes", { method: "POST", json: spec, signal }), 0);
    const first = await log.next();
    await log.return(undefined);
    if (first.done) throw unreachable("it began no terminal");
  } catch (error) {
    if (!SandboxError.is(error, "RESOURCE_BUSY")) throw error; // of another attempt, and it runs: the one that is meant
    begun = false;
  }
  const terminal = await findTerminal(run, request.id);
  if (terminal) return { terminal, begun };
  throw notFound(request.id);
}

/** The terminal with this id, also when it has ended. */
export async function findTerminal(run: Run, id: string): Promise<AgentProcess | undefined> {
  try {
    return await run.link.call(AgentProcess, pathOf(id));
  } catch (error) {
    if (SandboxError.is(error, "PROCESS_NOT_FOUND")) return undefined;
    throw error;
  }
}

export function notFound(id: string): SandboxError {
  return new SandboxError("PROCESS_NOT_FOUND", `Cannot find terminal "${id}": there is none, or it went with its run`);
}

/** A terminal's place among the agent's processes. */
export function pathOf(id: string): string {
  return `/processes/${encodeURIComponent(processId(id))}`;
}

/** Tells a terminal from others of the same id. */
export function lifeOf(run: Run, process: AgentProcess): string {
  return `${run.number}-${Math.trunc(process.startedAtMs)}-${process.pid}`;
}

function processId(id: string): string {
  return `tty.${id}`;
}

function toSpec(run: Run, { id, argv, session, cwd, env, user, cols, rows }: CreateTerminal): ProcessSpec {
  return {
    id: processId(id),
    attempt: crypto.randomUUID(),
    command: { argv: argv ?? anyShell, session },
    env: { ...environmentOf(run.record), COLORTERM: "truecolor" },
    ...(env && { callEnv: env }),
    ...(cwd !== undefined && { cwd }),
    defaultCwd: workspace,
    ...(user !== undefined && { user }),
    stdin: "none",
    stderr: "merge",
    mode: "roll",
    ringBytes: replayBytes,
    pty: { cols, rows },
    note: { command: shorten(argv?.join(" ") ?? "bash"), terminal: id },
  };
}

function toInfo(run: Run, id: string, process: AgentProcess): TerminalInfo {
  const { pid, startedAtMs, offset, end, note } = process;
  const command = note?.["command"];
  return {
    id,
    life: lifeOf(run, process),
    pid,
    command: typeof command === "string" ? command : "",
    startTime: startedAtMs,
    offset,
    ...(end && { exitCode: end.exitCode }),
    ...(end?.signal !== undefined && { signal: end.signal }),
  };
}
