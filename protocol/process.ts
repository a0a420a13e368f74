import { z } from "zod";
import { ErrorBody } from "./errors.ts";
import { ProcessEnd, SignalName } from "./agent.ts";
import { SandboxPath, ShortId, UserName } from "./names.ts";
import { EnvVars } from "./options.ts";

const noNul = (text: string) => !text.includes("\0");
const noNulMessage = (what: string) => ({ message: `${what} cannot contain NUL`, params: { code: "INVALID_COMMAND" } });

/** The longest a command may run: a timer of Node and of the kernel is a signed 32-bit number of milliseconds. */
export const timeoutLimitMs = 2_147_483_647;

export const Timeout = z.number().int().positive().max(timeoutLimitMs);

/**
 * Starts a process. The caller chooses `processId`: the same request sent again attaches to the process that the first
 * one started, from `Last-Event-ID` on, so a lost answer neither loses output nor runs a command twice.
 */
export const ExecRequest = z
  .strictObject({
    processId: ShortId,
    /** Text for the session's shell. */
    command: z.string().refine(noNul, noNulMessage("a command")).optional(),
    /** A program and its arguments, without a shell. */
    argv: z
      .array(z.string().refine(noNul, noNulMessage("an argument")))
      .min(1)
      .optional(),
    /** Session whose state a `command` starts from and changes, and in whose directory an `argv` starts. Null: none. */
    session: ShortId.nullable().default("default"),
    cwd: SandboxPath.optional(),
    env: EnvVars.optional(),
    timeoutMs: Timeout.optional(),
    user: UserName.optional(),
    /** "none": an empty input; "pipe": sent with writeStdin; or these bytes. */
    stdin: z.union([z.enum(["none", "pipe"]), z.strictObject({ base64: z.base64() })]).default("none"),
    stderr: z.enum(["separate", "merge"]).default("separate"),
    /** True: a ring of output, listed, outlives its reader. False: no output is dropped while somebody reads. */
    background: z.boolean().default(false),
  })
  .refine((request) => (request.command === undefined) !== (request.argv === undefined), {
    message: "either `command` or `argv` is needed",
    params: { code: "INVALID_COMMAND" },
  })
  .refine((request) => request.argv === undefined || request.argv[0] !== "", {
    message: "the program's name is empty",
    params: { code: "INVALID_COMMAND" },
  });
export type ExecRequest = z.infer<typeof ExecRequest>;

/** What every event of a process has; `bytes` (base64) holds the exact bytes where `data` could not. */
const at = { timestamp: z.string() };
const output = { ...at, data: z.string(), bytes: z.base64().optional() };

/** How a command ended, without its output, which the events before carried. */
export const ExecEnd = ProcessEnd.extend({ success: z.boolean(), sessionId: z.string().optional() });
export type ExecEnd = z.infer<typeof ExecEnd>;

/**
 * The one event type of processes, as server-sent events. The event's id is the log's offset after it, in bytes: a
 * request with that id as Last-Event-ID goes on behind it.
 */
export const ProcessEvent = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("start"),
    ...at,
    pid: z.number().int(),
    processId: z.string(),
    sessionId: z.string().optional(),
  }),
  z.object({ type: z.literal("stdout"), ...output }),
  z.object({ type: z.literal("stderr"), ...output }),
  /** Bytes [from, to) of the log are gone: nobody read them in time. */
  z.object({ type: z.literal("truncated"), ...at, from: z.number().int(), to: z.number().int() }),
  z.object({ type: z.literal("complete"), ...at, exitCode: z.number().int(), result: ExecEnd }),
  z.object({ type: z.literal("error"), ...at, error: ErrorBody }),
]);
export type ProcessEvent = z.infer<typeof ProcessEvent>;

export const ProcessInfo = z.object({
  id: z.string(),
  pid: z.number().int(),
  command: z.string(),
  background: z.boolean(),
  status: z.enum(["starting", "running", "completed", "failed", "killed", "error"]),
  startTime: z.number(),
  endTime: z.number().optional(),
  exitCode: z.number().int().optional(),
  signal: z.string().optional(),
  run: z.number().int(),
});
export type ProcessInfo = z.infer<typeof ProcessInfo>;

export const SignalBody = z.strictObject({ signal: SignalName.default("SIGTERM") });

/** SIGTERM, five seconds, SIGKILL, to the process and everything it started. */
export const StopBody = z.strictObject({ reason: z.enum(["aborted", "killed"]).default("killed") });
