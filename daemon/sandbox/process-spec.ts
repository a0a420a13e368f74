import { createHash } from "node:crypto";
import type { ProcessSpec } from "../../protocol/agent.ts";
import type { ExecRequest } from "../../protocol/process.ts";
import { environmentOf } from "./environment.ts";
import { workspace } from "./paths.ts";
import type { SandboxRecord } from "./record.ts";

/** Most that a background process's log keeps; what users know from `startProcess`. */
const ringBytes = 1024 * 1024;

/** What the agent is told to start: the request, in the environment that the sandbox has now. */
export function toSpec(record: SandboxRecord, request: ExecRequest): ProcessSpec {
  const session = request.session !== null && { session: request.session };
  const command = request.argv ? { argv: request.argv, ...session } : { script: request.command ?? "", ...session };
  return {
    id: request.processId,
    ...(request.attempt !== undefined && { attempt: request.attempt }),
    command,
    env: environmentOf(record),
    ...(request.env && { callEnv: request.env }),
    ...(request.cwd !== undefined && { cwd: request.cwd }),
    defaultCwd: workspace,
    ...(request.user !== undefined && { user: request.user }),
    stdin: request.stdin,
    stderr: request.stderr,
    ...(request.background ? { mode: "roll" as const, ringBytes } : { mode: "keep" as const }),
    ...(request.timeoutMs !== undefined && { timeoutMs: request.timeoutMs }),
    note: {
      command: shorten(request.command ?? request.argv?.join(" ") ?? ""),
      background: request.background,
      ...(request.background && { start: startHash(request) }),
    },
  };
}

/** What lists and the journal show of a command; the whole text may be megabytes. */
export function shorten(command: string): string {
  return command.length <= 1_000 ? command : `${command.slice(0, 999)}…`;
}

/** The same for two requests that start the same thing: who asks for it again means the one that runs. */
function startHash({ command, argv, session, cwd, env, timeoutMs, user, stdin, stderr }: ExecRequest): string {
  const what = JSON.stringify([command, argv, session, cwd, env, timeoutMs, user, stdin, stderr]);
  return createHash("sha256").update(what).digest("hex").slice(0, 16);
}
