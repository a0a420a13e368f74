import { z } from "zod";
import { ErrorBody } from "./errors.ts";

/**
 * The link: what the daemon and an agent say to each other, HTTP/1.1 on a unix socket. The agent offers mechanism, no
 * policy. Refusals are an HTTP status with an ErrorBody. The Go side is tested against fixtures made from this file.
 *
 *   GET    /hello                          AgentHello
 *   GET    /events                         AgentEvent a line, a heartbeat every 120 s
 *   POST   /processes?after=OFFSET         ProcessSpec -> frames (frame.ts). A known id attaches instead of starting
 *   GET    /processes                      { processes: AgentProcess[] }
 *   GET    /processes/ID                   AgentProcess
 *   GET    /processes/ID/log?after=&follow=0|1   frames from an offset; follow=0 ends at what is there now
 *   PUT    /processes/ID/stdin?end=0|1     bytes; answered when the process's pipe has taken them; end=1 closes it after them
 *   POST   /processes/ID/signal            SignalRequest -> SignalResult: one signal to the whole tree
 *   POST   /processes/ID/stop              StopRequest -> 202: SIGTERM, grace, SIGKILL to the whole tree; the log tells the end
 *   DELETE /processes/ID                   forgets an ended one (RESOURCE_BUSY while it runs)
 *   POST   /signal                         SignalRequest -> SignalResult: every process but the agent, or with leftBehind
 *                                          what commands, services and terminals that have ended left in the background
 *   PUT    /sessions/ID                    SessionSpec -> AgentSession (SESSION_ALREADY_EXISTS)
 *   GET    /sessions, /sessions/ID         { sessions: AgentSession[] }, AgentSession
 *   PATCH  /sessions/ID                    SessionPatch -> AgentSession
 *   DELETE /sessions/ID
 *   GET    /files/stat?path=&session=      AgentFile
 *   GET    /files/content?path=&session=   bytes; header atoll-file: AgentFile as JSON (ASCII, \u escapes)
 *   PUT    /files/content?path=&session=&mode=   bytes -> AgentFile; whole or not at all
 *   GET    /files/list?path=&session=&recursive=0|1&hidden=0|1    a line each: FileLine
 *   POST   /files/mkdir                    MkdirRequest -> AgentFile
 *   POST   /files/remove                   RemoveRequest -> {}
 *   POST   /files/move                     MoveRequest -> AgentFile
 *   GET    /files/archive?path=&session=   a tar stream of the directory's content (or of the one file)
 *   PUT    /files/archive?path=&session=   a tar stream, unpacked into the directory (made if missing) -> {}
 */
export const linkVersion = 3;

export const AgentHello = z.object({ link: z.number().int(), pid: z.literal(1), startedAtMs: z.number() });
export type AgentHello = z.infer<typeof AgentHello>;

/** "SIGTERM" style; the agent refuses unknown names with VALIDATION_FAILED. */
export const SignalName = z.string().regex(/^SIG[A-Z0-9]{1,10}$/, 'a signal is named like "SIGTERM"');

const Environment = z.record(z.string(), z.string());
const EnvironmentChange = z.record(z.string(), z.string().nullable());

/** What runs: a program with its arguments, or a text for a shell. */
export const ProcessCommand = z.union([
  z.object({
    argv: z.array(z.string()).min(1),
    /** The session in whose directory it starts; its variables and functions are a shell's and stay there. */
    session: z.string().optional(),
  }),
  z.object({
    script: z.string(),
    /** The session whose saved state it starts from and changes; absent: a fresh shell. */
    session: z.string().optional(),
  }),
]);
export type ProcessCommand = z.infer<typeof ProcessCommand>;

export const ProcessSpec = z.object({
  /** Chosen by the caller, unique in the run: asking again with the same id attaches to the same process. */
  id: z.string(),
  /**
   * Tells one start of this id from another: an ended process of another attempt is forgotten and this one starts; while it
   * runs, another attempt is RESOURCE_BUSY. Absent: attaches to whatever has the id.
   */
  attempt: z.string().max(64).optional(),
  command: ProcessCommand,
  /** The environment of every process of this sandbox. The agent adds HOME USER LOGNAME SHELL of `user` where absent. */
  env: Environment,
  /** Of this call only: above the session's variables, never entering them. Null unsets. */
  callEnv: EnvironmentChange.optional(),
  /** Relative to the session's directory, else to `defaultCwd`. Not there: FILE_NOT_FOUND; no directory: NOT_DIRECTORY. */
  cwd: z.string().optional(),
  /** Where a process without a session starts when `cwd` is absent or relative; made if missing. */
  defaultCwd: z.string(),
  /** Name or number; default root. */
  user: z.string().optional(),
  /** "none": an empty input. "pipe": by PUT /stdin. Or these bytes, then the end. */
  stdin: z.union([z.enum(["none", "pipe"]), z.object({ base64: z.string() })]),
  stderr: z.enum(["separate", "merge"]),
  /** keep: nothing is dropped, the writer waits for its reader. roll: a ring, the writer never waits. */
  mode: z.enum(["keep", "roll"]),
  /** Bytes of the ring in mode roll, default 1 MiB. */
  ringBytes: z.number().int().positive().optional(),
  /** After this time the whole tree gets SIGTERM, after 5 s SIGKILL; the end says timedOut, exit code 124. */
  timeoutMs: z.number().int().positive().optional(),
  /**
   * A terminal instead of pipes: one stream (stdout), mode roll, stdin "none"; TERM is set where it is not. The program is
   * as fast as the furthest of its viewers (attach); where nobody looks its output is read at some megabytes a second.
   */
  pty: z.object({ cols: z.number().int().min(1).max(1_000), rows: z.number().int().min(1).max(1_000) }).optional(),
  /** Given back in AgentProcess: what the daemon wants to know of it after a restart of its own. */
  note: z.record(z.string(), z.unknown()).optional(),
});
export type ProcessSpec = z.infer<typeof ProcessSpec>;

export const ProcessStarted = z.object({ id: z.string(), pid: z.number().int(), startedAtMs: z.number() });
export type ProcessStarted = z.infer<typeof ProcessStarted>;

/** How a process ended. An exit code is always there: 128 + signal when a signal ended it, 124 after a timeout, 127 not found, 126 not executable. */
export const ProcessEnd = z.object({
  exitCode: z.number().int(),
  signal: z.string().max(16).optional(),
  /** Why, when it did not end by itself. */
  reason: z.enum(["timeout", "aborted", "killed", "memory", "stopped"]).optional(),
  endedAtMs: z.number(),
  durationMs: z.number(),
  /** User and system time of the process and the children it waited for. */
  cpuTimeMs: z.number(),
  /** With a session: whether what the shell left behind is in it now. */
  stateSaved: z.boolean().optional(),
  /** Whether something it started still holds its output open. */
  background: z.boolean(),
});
export type ProcessEnd = z.infer<typeof ProcessEnd>;

/** Bytes [from, to) are gone: the reader was away for too long. */
export const Truncated = z.object({ from: z.number().int(), to: z.number().int() });
export type Truncated = z.infer<typeof Truncated>;

export const AgentProcess = z.object({
  id: z.string(),
  pid: z.number().int(),
  startedAtMs: z.number(),
  mode: z.enum(["keep", "roll"]),
  /** Payload bytes of both streams so far. */
  offset: z.number().int(),
  /** The first byte that is still there. */
  windowStart: z.number().int(),
  end: ProcessEnd.optional(),
  note: z.record(z.string(), z.unknown()).optional(),
});
export type AgentProcess = z.infer<typeof AgentProcess>;

export const SignalRequest = z.object({ signal: SignalName, leftBehind: z.boolean().optional() });
export const SignalResult = z.object({ signalled: z.number().int() });

export const StopRequest = z.object({
  reason: z.enum(["aborted", "killed", "stopped"]),
  graceMs: z.number().int().min(0).default(5_000),
});

export const SessionSpec = z.object({
  cwd: z.string().optional(),
  /** Variables the session has beside those of the sandbox. */
  env: EnvironmentChange.optional(),
  /** Time limit of the session's scripts that have no `timeoutMs` of their own. */
  commandTimeoutMs: z.number().int().positive().optional(),
});
export type SessionSpec = z.infer<typeof SessionSpec>;

/** A value sets and exports the variable in the saved state, null unsets it there. */
export const SessionPatch = z.object({ env: EnvironmentChange });
export type SessionPatch = z.infer<typeof SessionPatch>;

export const AgentSession = z.object({
  id: z.string(),
  cwd: z.string(),
  createdAtMs: z.number(),
  commandTimeoutMs: z.number().int().positive().optional(),
  /** False where the image has no bash: functions and traps are not kept. */
  functions: z.boolean(),
});
export type AgentSession = z.infer<typeof AgentSession>;

export const AgentFile = z.object({
  name: z.string(),
  absolutePath: z.string(),
  /** Relative to what was listed; "" for a single file. */
  relativePath: z.string(),
  type: z.enum(["file", "directory", "symlink", "other"]),
  size: z.number().int(),
  modifiedAtMs: z.number(),
  /** Permission bits, as in 0o755. */
  mode: z.number().int(),
  /** Of a symlink: what it holds. */
  target: z.string().optional(),
});
export type AgentFile = z.infer<typeof AgentFile>;

/** Every listing ends with `end`; one that does not was cut off. A stream that fails under way ends with `error`. */
export const FileLine = z.union([
  z.object({ file: AgentFile }),
  z.object({ end: z.object({ count: z.number().int() }) }),
  z.object({ error: ErrorBody }),
]);

const Place = { path: z.string(), session: z.string().optional() };
export const MkdirRequest = z.object({ ...Place, recursive: z.boolean(), mode: z.number().int().optional() });
export const RemoveRequest = z.object({ ...Place, recursive: z.boolean() });
export const MoveRequest = z.object({ ...Place, to: z.string() });

export const AgentEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("heartbeat"), at: z.number() }),
  z.object({ type: z.literal("processEnded"), id: z.string(), end: ProcessEnd }),
]);
export type AgentEvent = z.infer<typeof AgentEvent>;
