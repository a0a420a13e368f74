import { z } from "zod";
import { ErrorBody } from "./errors.ts";
import { ProcessEnd, SignalName } from "./agent.ts";
import { SandboxPath, ShortId, UserName } from "./names.ts";
import { EnvVars } from "./options.ts";

const noNul = (text: string) => !text.includes("\0");
const noNulMessage = (what: string) => ({ message: `${what} cannot contain NUL`, params: { code: "INVALID_COMMAND" } });

/** A timer of Node and of the kernel is a signed 32-bit number of milliseconds. */
export const timeoutLimitMs = 2_147_483_647;

/** The longest a command may run, and the longest anybody waits for one. */
export const Timeout = z.number().int().positive().max(timeoutLimitMs);

/**
 * Whether a process is a service: "wake" is started again at every wake of its sandbox, "on-failure" also when it ends
 * non-zero, after 1 s, then twice as long each time up to 30 s; a minute of life makes it 1 s again. Ending it by a
 * signal or a stop ends the service.
 */
export const Restart = z.enum(["never", "wake", "on-failure"]);
export type Restart = z.infer<typeof Restart>;

/**
 * Starts a process. The caller chooses `processId`: the same request sent again attaches to the process that the first
 * one started, from `Last-Event-ID` on, so a lost answer neither loses output nor runs a command twice.
 */
export const ExecRequest = z
  .strictObject({
    processId: ShortId,
    /**
     * Tells one start of this id from another. An ended background process of another attempt gives its id away; one that
     * runs is attached to where it is the same command, else the start is RESOURCE_BUSY. Absent: attaches to whatever has
     * the id.
     */
    attempt: ShortId.optional(),
    /** Text for the session's shell. */
    command: z.string().refine(noNul, noNulMessage("a command")).optional(),
    /** A program and its arguments, without a shell. */
    argv: z
      .array(z.string().refine(noNul, noNulMessage("an argument")))
      .min(1)
      .optional(),
    /**
     * Session whose state a `command` starts from and changes, and whose directory and exported variables an `argv` gets.
     * Null: none.
     */
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
    /** Anything but "never" needs `background`. */
    restart: Restart.default("never"),
  })
  .refine((request) => request.background || (request.restart === "never" && request.attempt === undefined), {
    message: "`restart` and `attempt` are for background processes",
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
 * The one event type of processes, as server-sent events. The event's id holds the log's offset after it, in bytes: a
 * request with that id as Last-Event-ID goes on behind it.
 */
export const ProcessEvent = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("start"),
    ...at,
    pid: z.number().int(),
    processId: z.string(),
    /** The run of the sandbox that it belongs to: what a handle of it sends along. */
    run: z.number().int(),
    sessionId: z.string().optional(),
  }),
  z.object({ type: z.literal("stdout"), ...output }),
  z.object({ type: z.literal("stderr"), ...output }),
  /** Bytes [from, to) of the log are gone: nobody read them in time. */
  z.object({ type: z.literal("truncated"), ...at, from: z.number().int(), to: z.number().int() }),
  /** Everything there was is told and the process goes on. Last, where nobody asked to follow. */
  z.object({ type: z.literal("caught-up"), ...at, offset: z.number().int() }),
  z.object({ type: z.literal("complete"), ...at, exitCode: z.number().int(), result: ExecEnd }),
  z.object({ type: z.literal("error"), ...at, error: ErrorBody }),
]);
export type ProcessEvent = z.infer<typeof ProcessEvent>;

/** The log's offset in the id of an event of a process; undefined where it is none. */
export function offsetOfEvent(id: string | undefined): number | undefined {
  const digits = /^\d+-(\d+)/.exec(id ?? "")?.[1];
  return digits === undefined ? undefined : Number(digits);
}

export const ProcessInfo = z.object({
  id: z.string(),
  pid: z.number().int(),
  command: z.string(),
  background: z.boolean(),
  /** "error": a service that could not be started; it has no pid (0) and no log. */
  status: z.enum(["starting", "running", "completed", "failed", "killed", "error"]),
  /** Where it is a service. */
  restart: Restart.optional(),
  startTime: z.number(),
  endTime: z.number().optional(),
  exitCode: z.number().int().optional(),
  signal: z.string().optional(),
  /** Why a service could not be started. */
  error: ErrorBody.optional(),
  run: z.number().int(),
  /** Bytes of both output streams so far. */
  offset: z.number().int(),
});
export type ProcessInfo = z.infer<typeof ProcessInfo>;

export const SignalBody = z.strictObject({ signal: SignalName.default("SIGTERM") });

/** SIGTERM, five seconds, SIGKILL, to the process and everything it started. */
export const StopBody = z.strictObject({ reason: z.enum(["aborted", "killed"]).default("killed") });

/** Whom a signal to all goes to: with `background` only the trees of background processes, else every process there is. */
export const SignalAllBody = SignalBody.extend({ background: z.boolean().default(false) });

/** What is read of a process's log. Last-Event-ID comes before `after`. */
export const FollowQuery = z.strictObject({
  run: z.coerce.number().int().positive().optional(),
  follow: z.enum(["true", "false"]).default("true"),
  /** "false": its start and its end alone. */
  output: z.enum(["true", "false"]).default("true"),
  /** Offset to begin at. */
  after: z.coerce.number().int().min(0).default(0),
});

const Port = z.coerce.number().refine((port) => Number.isInteger(port) && port >= 1 && port <= 65_535, {
  message: "a port is a whole number from 1 to 65535",
  params: { code: "INVALID_PORT" },
});
const Status = z.coerce.number().int().min(100).max(599);

/** When a port counts as ready: "tcp": a connection is taken; "http": GET of `path` is answered with a status in the range. */
export const WaitForPortQuery = z.strictObject({
  run: z.coerce.number().int().positive().optional(),
  port: Port,
  mode: z.enum(["http", "tcp"]).default("http"),
  path: z
    .string()
    .regex(/^\/[\x21-\x7e]*$/, "a path starts with / and has no blanks; others are percent-encoded")
    .max(2_048)
    .default("/"),
  minStatus: Status.default(200),
  maxStatus: Status.default(399),
  timeoutMs: z.coerce.number().int().positive().max(timeoutLimitMs).optional(),
  /** Between two looks, once the first quick ones have found nothing. */
  intervalMs: z.coerce.number().int().min(10).max(60_000).default(500),
});

/** `complete` when the port is ready. PROCESS_EXITED_BEFORE_READY, PROCESS_READY_TIMEOUT are errors. */
export const PortEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("complete"), ...at, port: z.number().int(), status: z.number().int().optional() }),
  z.object({ type: z.literal("error"), ...at, error: ErrorBody }),
]);
export type PortEvent = z.infer<typeof PortEvent>;
