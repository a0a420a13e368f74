import { z } from "zod";
import { CreateSession, SessionInfo } from "./session.ts";
import {
  FileInfo,
  FileListEvent,
  FileQuery,
  GitCheckoutBody,
  GitEvent,
  ListFilesQuery,
  MkdirBody,
  MoveBody,
  RemoveBody,
  WriteQuery,
} from "./file.ts";
import { SandboxError } from "./errors.ts";
import { LifecycleEvent, LifecycleQuery } from "./lifecycle.ts";
import { BuildEvent, Check, Health, ImageInfo, ImageName } from "./machine.ts";
import { SandboxId, ShortId } from "./names.ts";
import { EnvVars, SandboxConfig } from "./options.ts";
import {
  ExecRequest,
  FollowQuery,
  PortEvent,
  ProcessEvent,
  ProcessInfo,
  SignalAllBody,
  SignalBody,
  StopBody,
  WaitForPortQuery,
} from "./process.ts";
import { ExposedPort, ExposePortBody, PortInPath } from "./port.ts";
import { ConnectionInfo, ListQuery, SandboxInfo, SandboxSettings } from "./sandbox.ts";
import { CreateTerminal, TerminalId, TerminalInfo, Ticket, TicketBody } from "./terminal.ts";
import { ChangesBody, ChangesResult, WatchBody, WatchEvent } from "./watch.ts";

/**
 * What a verb needs of its sandbox: `start` wakes or makes it, `running` acts on a run and finds nothing when it is
 * asleep, `record` never needs a run, `none` has no sandbox.
 */
export type Needs = "start" | "running" | "record" | "none";

/** What an answer is: one JSON value, bytes, or server-sent events whose data is JSON. */
export type Output = { json: z.ZodType } | { events: z.ZodType } | { bytes: true };

export type VerbShape = {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** `:name` stands for a path parameter. */
  path: string;
  needs: Needs;
  params: z.ZodObject;
  query: z.ZodObject;
  /** A schema for a JSON body, "bytes" for a raw one, absent for none. */
  body?: z.ZodType | "bytes";
  output: Output;
  /** One sentence for the OpenAPI document. */
  summary: string;
};

const none = z.strictObject({});
const ofSandbox = z.strictObject({ sandbox: SandboxId });
const ofProcess = z.strictObject({ sandbox: SandboxId, process: ShortId });
const ofSession = z.strictObject({ sandbox: SandboxId, session: ShortId });
const ofPort = z.strictObject({ sandbox: SandboxId, port: PortInPath });
const ofTerminal = z.strictObject({ sandbox: SandboxId, terminal: TerminalId });
const ofImage = z.strictObject({ image: ImageName });
const done = { json: z.object({}) };

/** `run` names the life of the sandbox a handle belongs to: in another run the verb answers STALE_HANDLE. */
const inRun = z.strictObject({ run: z.coerce.number().int().positive().optional() });

/** Every operation of the API. Types, validation, routes, SDK calls, OpenAPI and the wire hash come from this table. */
export const verbs = {
  health: {
    method: "GET",
    path: "/v1/health",
    needs: "none",
    params: none,
    query: none,
    output: { json: Health },
    summary: "What the daemon is",
  },
  doctor: {
    method: "GET",
    path: "/v1/doctor",
    needs: "none",
    params: none,
    query: none,
    output: { json: z.object({ checks: z.array(Check) }) },
    summary: "What this host can do, what is missing, and the remedy",
  },
  down: {
    method: "POST",
    path: "/v1/down",
    needs: "none",
    params: none,
    query: none,
    body: z.strictObject({ purge: z.boolean().default(false) }),
    output: done,
    summary: "Put every sandbox to sleep and end the daemon; purge also removes all disks",
  },
  listImages: {
    method: "GET",
    path: "/v1/images",
    needs: "none",
    params: none,
    query: none,
    output: { json: z.object({ images: z.array(ImageInfo) }) },
    summary: "Images of this machine's store",
  },
  buildImage: {
    method: "POST",
    path: "/v1/images/:image/build",
    needs: "none",
    params: ofImage,
    query: none,
    output: { events: BuildEvent },
    summary: "Build an image by its recipe",
  },
  listSandboxes: {
    method: "GET",
    path: "/v1/sandboxes",
    needs: "none",
    params: none,
    query: ListQuery,
    output: { json: z.object({ sandboxes: z.array(SandboxInfo) }) },
    summary: "Sandboxes of this daemon; wakes none",
  },
  followLifecycle: {
    method: "GET",
    path: "/v1/lifecycle",
    needs: "none",
    params: none,
    query: LifecycleQuery,
    output: { events: LifecycleEvent },
    summary: "Starts, ends and idle times of the sandboxes of these classes, as they happen",
  },

  configure: {
    method: "PUT",
    path: "/v1/sandboxes/:sandbox",
    needs: "record",
    params: ofSandbox,
    query: none,
    body: SandboxConfig,
    output: { json: SandboxInfo },
    summary: "Make the sandbox's record if there is none, and apply these options; starts nothing",
  },
  info: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox",
    needs: "record",
    params: ofSandbox,
    query: none,
    output: { json: SandboxInfo },
    summary: "What is known of a sandbox; wakes nothing",
  },
  set: {
    method: "PATCH",
    path: "/v1/sandboxes/:sandbox",
    needs: "record",
    params: ofSandbox,
    query: none,
    body: SandboxSettings,
    output: { json: SandboxInfo },
    summary: "Change settings",
  },
  start: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/start",
    needs: "start",
    params: ofSandbox,
    query: none,
    output: { json: SandboxInfo },
    summary: "Start or wake the sandbox",
  },
  stop: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/stop",
    needs: "record",
    params: ofSandbox,
    query: none,
    body: SignalBody,
    output: { json: z.object({ existed: z.boolean() }) },
    summary: "Sleep now: processes end, the disk stays",
  },
  destroy: {
    method: "DELETE",
    path: "/v1/sandboxes/:sandbox",
    needs: "record",
    params: ofSandbox,
    query: none,
    output: { json: z.object({ existed: z.boolean() }) },
    summary: "Remove the sandbox and everything it has",
  },
  listConnections: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/connections",
    needs: "running",
    params: ofSandbox,
    query: none,
    output: { json: z.object({ connections: z.array(ConnectionInfo) }) },
    summary: "Open connections out of the sandbox",
  },

  exposePort: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/ports",
    needs: "record",
    params: ofSandbox,
    query: none,
    body: ExposePortBody,
    output: { json: ExposedPort },
    summary:
      "Give a port a URL that stays valid until it is taken back; the same again is the same URL; starts nothing",
  },
  listExposedPorts: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/ports",
    needs: "record",
    params: ofSandbox,
    query: none,
    output: { json: z.object({ ports: z.array(ExposedPort) }) },
    summary: "Ports that have a URL",
  },
  unexposePort: {
    method: "DELETE",
    path: "/v1/sandboxes/:sandbox/ports/:port",
    needs: "record",
    params: ofPort,
    query: none,
    output: done,
    summary: "Take a port's URL back and cut who is connected through it",
  },
  validatePortToken: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/ports/:port/validate",
    needs: "record",
    params: ofPort,
    query: none,
    body: z.strictObject({ token: z.string().max(255) }),
    output: { json: z.object({ valid: z.boolean() }) },
    summary: "Whether this token opens the port's preview",
  },

  exec: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/processes",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: ExecRequest,
    output: { events: ProcessEvent },
    summary: "Start a process and follow it",
  },
  listProcesses: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/processes",
    needs: "running",
    params: ofSandbox,
    query: none,
    output: { json: z.object({ processes: z.array(ProcessInfo) }) },
    summary: "Background processes, running and ended",
  },
  getProcess: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/processes/:process",
    needs: "running",
    params: ofProcess,
    query: inRun,
    output: { json: ProcessInfo },
    summary: "One process",
  },
  followProcess: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/processes/:process/events",
    needs: "running",
    params: ofProcess,
    query: FollowQuery,
    output: { events: ProcessEvent },
    summary: "A process's events from Last-Event-ID or `after` on; follow=false ends at what is there",
  },
  waitForPort: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/processes/:process/wait-for-port",
    needs: "running",
    params: ofProcess,
    query: WaitForPortQuery,
    output: { events: PortEvent },
    summary: "Wait until a port is ready, or the process ends",
  },
  cleanProcesses: {
    method: "DELETE",
    path: "/v1/sandboxes/:sandbox/processes",
    needs: "running",
    params: ofSandbox,
    query: none,
    output: { json: z.object({ removed: z.number().int() }) },
    summary: "Forget ended background processes and their logs",
  },
  writeStdin: {
    method: "PUT",
    path: "/v1/sandboxes/:sandbox/processes/:process/stdin",
    needs: "running",
    params: ofProcess,
    query: inRun.extend({ end: z.enum(["true", "false"]).default("false") }),
    body: "bytes",
    output: done,
    summary: "Write to a process's standard input; end=true closes it afterwards",
  },
  signalProcess: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/processes/:process/signal",
    needs: "running",
    params: ofProcess,
    query: inRun,
    body: SignalBody,
    output: { json: z.object({ signalled: z.number().int() }) },
    summary: "Send a signal to a process's whole tree",
  },
  stopProcess: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/processes/:process/stop",
    needs: "running",
    params: ofProcess,
    query: inRun,
    body: StopBody,
    output: done,
    summary: "End a process's whole tree: SIGTERM, 5 s, SIGKILL; its events tell the end",
  },
  signalAll: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/signal",
    needs: "running",
    params: ofSandbox,
    query: none,
    body: SignalAllBody,
    output: { json: z.object({ signalled: z.number().int() }) },
    summary: "Send a signal to every process of the sandbox, or to every background one",
  },

  createTerminal: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/terminals",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: CreateTerminal,
    output: { json: TerminalInfo },
    summary: "Begin a terminal, or find the one with this id that runs",
  },
  listTerminals: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/terminals",
    needs: "running",
    params: ofSandbox,
    query: none,
    output: { json: z.object({ terminals: z.array(TerminalInfo) }) },
    summary: "Terminals, running and ended",
  },
  closeTerminal: {
    method: "DELETE",
    path: "/v1/sandboxes/:sandbox/terminals/:terminal",
    needs: "running",
    params: ofTerminal,
    query: none,
    output: done,
    summary: "Hang up: everything that runs in the terminal gets SIGHUP, SIGTERM, after 5 s SIGKILL",
  },
  createTicket: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/tickets",
    needs: "record",
    params: ofSandbox,
    query: none,
    body: TicketBody,
    output: { json: Ticket },
    summary: "What opens one terminal's WebSocket once, within 60 s, where no header can be sent",
  },

  createSession: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/sessions",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: CreateSession,
    output: { json: SessionInfo },
    summary: "Make a session: saved shell state",
  },
  getSession: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/sessions/:session",
    needs: "start",
    params: ofSession,
    query: none,
    output: { json: SessionInfo },
    summary: "One session",
  },
  setSessionEnv: {
    method: "PATCH",
    path: "/v1/sandboxes/:sandbox/sessions/:session",
    needs: "start",
    params: ofSession,
    query: none,
    body: z.strictObject({ env: EnvVars }),
    output: { json: SessionInfo },
    summary: "Set or (null) unset variables of a session",
  },
  deleteSession: {
    method: "DELETE",
    path: "/v1/sandboxes/:sandbox/sessions/:session",
    needs: "start",
    params: ofSession,
    query: none,
    output: done,
    summary: "Forget a session; its running commands go on",
  },

  statFile: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/files/stat",
    needs: "start",
    params: ofSandbox,
    query: FileQuery,
    output: { json: FileInfo },
    summary: "What a path is",
  },
  readFile: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/files/content",
    needs: "start",
    params: ofSandbox,
    query: FileQuery,
    output: { bytes: true },
    summary: "A file's bytes; header atoll-file has its FileInfo as JSON; Range is served",
  },
  writeFile: {
    method: "PUT",
    path: "/v1/sandboxes/:sandbox/files/content",
    needs: "start",
    params: ofSandbox,
    query: WriteQuery,
    body: "bytes",
    output: { json: FileInfo },
    summary: "Replace a file whole or not at all; makes parents",
  },
  listFiles: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/files/list",
    needs: "start",
    params: ofSandbox,
    query: ListFilesQuery,
    output: { events: FileListEvent },
    summary: "A directory's entries",
  },
  mkdir: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/files/mkdir",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: MkdirBody,
    output: { json: FileInfo },
    summary: "Make a directory",
  },
  deleteFile: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/files/remove",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: RemoveBody,
    output: done,
    summary: "Remove a file, or with recursive a directory",
  },
  moveFile: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/files/move",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: MoveBody,
    output: { json: FileInfo },
    summary: "Rename or move",
  },
  uploadArchive: {
    method: "PUT",
    path: "/v1/sandboxes/:sandbox/files/archive",
    needs: "start",
    params: ofSandbox,
    query: FileQuery,
    body: "bytes",
    output: done,
    summary: "Unpack a tar stream into a directory",
  },
  downloadArchive: {
    method: "GET",
    path: "/v1/sandboxes/:sandbox/files/archive",
    needs: "start",
    params: ofSandbox,
    query: FileQuery,
    output: { bytes: true },
    summary: "A directory as a tar stream",
  },
  watch: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/files/watch",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: WatchBody,
    output: { events: WatchEvent },
    summary: "What happens in a directory, as it happens",
  },
  checkChanges: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/files/changes",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: ChangesBody,
    output: { json: ChangesResult },
    summary: "Whether anything has happened in a directory since the version of an earlier answer",
  },
  gitCheckout: {
    method: "POST",
    path: "/v1/sandboxes/:sandbox/git/checkout",
    needs: "start",
    params: ofSandbox,
    query: none,
    body: GitCheckoutBody,
    output: { events: GitEvent },
    summary: "Clone a repository",
  },
} as const satisfies Record<string, VerbShape>;

export type Verbs = typeof verbs;
export type VerbName = keyof Verbs;

type BodyOf<V extends VerbName> = Verbs[V] extends { body: infer B } ? B : undefined;

/** What the daemon gets after parsing. */
export type VerbInput<V extends VerbName> = {
  params: z.output<Verbs[V]["params"]>;
  query: z.output<Verbs[V]["query"]>;
  body: BodyOf<V> extends z.ZodType
    ? z.output<BodyOf<V>>
    : BodyOf<V> extends "bytes"
      ? ReadableStream<Uint8Array>
      : undefined;
};

/** What can be sent as raw bytes. Spelled out, because not every runtime's types have BodyInit. */
export type RawBody = string | Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array | string>;

/** What a caller sends. */
export type VerbRequest<V extends VerbName> = {
  params: z.input<Verbs[V]["params"]>;
  query: z.input<Verbs[V]["query"]>;
  body: BodyOf<V> extends z.ZodType ? z.input<BodyOf<V>> : BodyOf<V> extends "bytes" ? RawBody : undefined;
};

export type JsonOutput<V extends VerbName> = Verbs[V]["output"] extends { json: infer S extends z.ZodType }
  ? z.output<S>
  : never;
export type EventOutput<V extends VerbName> = Verbs[V]["output"] extends { events: infer S extends z.ZodType }
  ? z.output<S>
  : never;

export type JsonVerb = { [V in VerbName]: Verbs[V]["output"] extends { json: z.ZodType } ? V : never }[VerbName];
export type EventVerb = { [V in VerbName]: Verbs[V]["output"] extends { events: z.ZodType } ? V : never }[VerbName];
export type BytesVerb = { [V in VerbName]: Verbs[V]["output"] extends { bytes: true } ? V : never }[VerbName];

/** The path of a verb with its parameters filled in. Throws VALIDATION_FAILED for one that would lead elsewhere. */
export function verbPath(verb: VerbName, params: Record<string, string>): string {
  return verbs[verb].path.replace(/:([a-z]+)/g, (_, name: string) => segmentOf(name, params[name] ?? ""));
}

/** Dots cannot be escaped: whoever parses a URL takes "%2e%2e" for "..", and the path for that of another verb. */
export function segmentOf(name: string, value: string): string {
  if (value !== "." && value !== "..") return encodeURIComponent(value);
  throw new SandboxError("VALIDATION_FAILED", `Cannot use ${JSON.stringify(value)}: it is no name of a ${name}`);
}
