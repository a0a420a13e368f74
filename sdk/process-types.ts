import type { ErrorBody } from "../protocol/errors.ts";
import type { Content } from "./bytes.ts";
import type { Variables } from "./exec-options.ts";

/**
 * "starting", "running"; "completed": exit code 0; "failed": another one; "killed": by a signal, a timeout or the sandbox's
 * sleep; "error": a service that could not be started.
 */
export type ProcessStatus = "starting" | "running" | "completed" | "failed" | "killed" | "error";

/** The options of `startProcess`. */
export type StartProcessOptions = {
  /**
   * Its id: 1 to 64 letters, digits, dots, underscores and hyphens. Default: a random one. With the id of a process that runs,
   * the same start gives that process, another one throws RESOURCE_BUSY; the id of an ended one is given to the new.
   */
  processId?: string | undefined;
  /** Where it starts. Default and base of a relative one: the session's directory. FILE_NOT_FOUND if missing. */
  cwd?: string | undefined;
  /** Variables of this process only; undefined or null unsets one. */
  env?: Variables | undefined;
  /** Milliseconds after which its whole tree is ended (SIGTERM, 5 s, SIGKILL). Default: none, whatever the session has. */
  timeout?: number | undefined;
  /** User inside the sandbox, by name or number. Default root. */
  user?: string | undefined;
  /**
   * "wake": a service; it is started again, under the same id, whenever the sandbox wakes. "on-failure": also when it ends
   * with another exit code than 0 or by a signal: after 1 s, then twice as long each time up to 30 s; a minute of life
   * makes it 1 s again. `kill` ends the service. Default "never".
   */
  restart?: "never" | "wake" | "on-failure" | undefined;
  /** Called with output as it arrives, from the first byte that is kept. The next piece waits for a promise that it returns. */
  onOutput?: ((stream: "stdout" | "stderr", data: string) => void | Promise<void>) | undefined;
  /** Called when it has ended. A service that is started again is another process. */
  onExit?: ((exitCode: number) => void) | undefined;
  /** Called when it has started, before the call resolves. */
  onStart?: ((process: Process) => void) | undefined;
  /** Called with what keeps it from starting, before the call rejects, and later with what keeps it from being followed. */
  onError?: ((error: Error) => void) | undefined;
};

/**
 * A process in the background: it outlives this program, and the daemon. Its fields are what was known last; `getStatus` and
 * the waits bring them up to date. A handle belongs to one run of the sandbox: when that has ended, its methods throw
 * STALE_HANDLE. `getProcess` finds a service again.
 */
export interface Process {
  readonly id: string;
  /** Inside the sandbox. */
  readonly pid: number;
  /** Its first 1,000 characters. */
  readonly command: string;
  readonly status: ProcessStatus;
  readonly startTime: Date;
  readonly endTime?: Date;
  /** 128 + signal where a signal ended it, 124 after `timeout`. */
  readonly exitCode?: number;
  /** Where it is a service. */
  readonly restart?: "wake" | "on-failure";
  /** Why a service could not be started. */
  readonly error?: ErrorBody;

  /**
   * Sends a signal (default "SIGTERM") to it and everything it started. SIGTERM, SIGKILL, SIGINT and SIGQUIT end a service for
   * good. One that has ended takes no harm.
   */
  kill(signal?: string): Promise<void>;

  /** What it is doing now. */
  getStatus(): Promise<ProcessStatus>;

  /** What it has printed, as `getProcessLogs`. */
  getLogs(options?: LogRange): Promise<ProcessLogs>;

  /**
   * Writes to its standard input, and waits until it has been taken; several writes keep their order. Throws PROCESS_NOT_FOUND
   * when it has ended, STALE_HANDLE when its input is closed.
   */
  write(data: Content): Promise<void>;

  /** Ends its standard input, behind what was written. */
  closeStdin(): Promise<void>;

  /**
   * Waits for a line, on either stream, that contains a text or matches an expression. It looks at what is already printed
   * first. A line without an end counts once nothing has followed it for a moment; colours are ignored.
   *
   * Throws PROCESS_READY_TIMEOUT after `timeout` milliseconds (default: none), PROCESS_EXITED_BEFORE_READY with the last
   * lines it printed.
   */
  waitForLog(pattern: string | RegExp, timeout?: number): Promise<LogMatch>;

  /** Waits for its end. Throws PROCESS_READY_TIMEOUT after `timeout` milliseconds (default: none). */
  waitForExit(timeout?: number): Promise<{ exitCode: number; signal?: string }>;

  /**
   * Waits until a port of the sandbox is ready, also one that only 127.0.0.1 or ::1 has. Nothing is sent to the port before
   * somebody listens on it.
   *
   * Throws PROCESS_READY_TIMEOUT with what is listened on, PROCESS_EXITED_BEFORE_READY with the last lines it printed,
   * INVALID_PORT.
   */
  waitForPort(port: number, options?: WaitForPortOptions): Promise<void>;
}

/** What `waitForLog` found. */
export type LogMatch = {
  line: string;
  /** Where an expression was looked for. */
  match?: RegExpMatchArray;
};

/** When a port counts as ready. */
export type WaitForPortOptions = {
  /** "http": GET of `path` is answered with `status`; "tcp": a connection is taken. Default "http". */
  mode?: "http" | "tcp" | undefined;
  /** Default "/". */
  path?: string | undefined;
  /** One, or a range. Default 200 to 399. */
  status?: number | { min?: number; max?: number } | undefined;
  /** Milliseconds. Default: none, it waits as long as the process lives. */
  timeout?: number | undefined;
  /** Milliseconds between two looks, after a few quick ones. Default 500. */
  interval?: number | undefined;
};

/** What part of a log is read. */
export type LogRange = {
  /** Bytes of both streams to pass over: the `offset` of an earlier answer. Default 0. */
  after?: number | undefined;
  /** Most bytes of both streams together, at least 4. Default: all there are. */
  maxBytes?: number | undefined;
};

/** What a process has printed. The last MiB is kept. */
export type ProcessLogs = {
  processId: string;
  stdout: string;
  stderr: string;
  /** Bytes of both streams so far: what to give as `after` to go on. */
  offset: number;
  /** True where bytes between `after` and what is here are no longer kept. */
  truncated?: boolean;
};

/** An event of `streamProcessLogs`. */
export type LogEvent = {
  /** Output as it comes; `truncated` where bytes are gone; `exit` or `error` last. */
  type: "stdout" | "stderr" | "truncated" | "exit" | "error";
  /** ISO 8601. */
  timestamp: string;
  processId: string;
  /** Bytes of both streams so far: what to give as `after` to go on. Absent for `error`. */
  offset?: number;
  /** The text of stdout and stderr; of error what went wrong, in words; else empty. */
  data: string;
  /** Of stdout and stderr: the exact bytes in base64, where they are not the text. */
  bytes?: string;
  /** Of exit. */
  exitCode?: number;
  /** Of exit: the signal that ended it. */
  signal?: string;
};
