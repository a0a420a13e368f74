import type { Content } from "./bytes.ts";

/** Environment variables; undefined or null unsets one. */
export type Variables = Record<string, string | null | undefined>;

/** The options of `exec` and `execStream`. */
export type ExecOptions = {
  /**
   * Where the command starts. Default and base of a relative one: the session's directory; without a session "/workspace".
   * FILE_NOT_FOUND if missing.
   */
  cwd?: string | undefined;
  /** Variables of this command only; undefined or null unsets one. */
  env?: Variables | undefined;
  /**
   * Milliseconds after which the command's whole process tree is ended (SIGTERM, 5 s, SIGKILL). The result then has
   * `timedOut`, reason "timeout" and exit code 124. Default: the session's limit, else none.
   */
  timeout?: number | undefined;
  /**
   * Ends the command's whole process tree when it aborts; the result, given when it really has ended, has reason
   * "aborted". Aborted before the command began: ABORTED is thrown, and it never begins.
   */
  signal?: AbortSignal | undefined;
  /** Standard input. Default: empty. A stream is read as the command reads. */
  stdin?: Content | undefined;
  /** User inside the sandbox, by name or number. Default root. */
  user?: string | undefined;
  /** "buffer": output as exact bytes. Default "utf8": as text, where what is no UTF-8 becomes U+FFFD. */
  encoding?: "utf8" | "utf-8" | "buffer" | undefined;
  /** "merge": stderr is written into stdout, in the exact order. Default "separate": each exact, in order of arrival. */
  stderr?: "separate" | "merge" | undefined;
  /**
   * Most bytes of each of stdout and stderr kept for the result. Beyond it the command goes on, `onOutput` and streams
   * still get everything, and the result has `truncated`. Default 16 MiB; with `stream` 1 MiB, because the events before
   * `complete` have carried it all.
   */
  maxBuffer?: number | undefined;
  /**
   * True: a Response whose body is server-sent ExecEvents. Together with `onOutput`, as former programs have it, the result
   * is still an ExecResult.
   */
  stream?: boolean | undefined;
  /**
   * Of streams: the id of the last event that a reader of this command has, as it sends it in Last-Event-ID when it comes back;
   * null or undefined for one that comes first. The command is not run again: the stream goes on behind that event. PROCESS_NOT_FOUND where its output is no longer kept;
   * the result then has only what came since, and `truncated`.
   */
  lastEventId?: string | null | undefined;
};

/** What is called while a command runs. What a callback throws rejects the call; the command goes on. */
export type ExecCallbacks<T> = {
  /** Called with output as it arrives. The next piece waits for a promise that it returns. */
  onOutput?: ((stream: "stdout" | "stderr", data: T) => void | Promise<void>) | undefined;
  /** Called with the result, before the call resolves. */
  onComplete?: ((result: ExecResult<T>) => void) | undefined;
  /** Called with the error, before the call rejects. Exit codes are no errors. */
  onError?: ((error: Error) => void) | undefined;
};

/** How a command ended. A non-zero exit is a result, not an error. */
export type ExecResult<T = string> = {
  /** Whether the exit code is 0. */
  success: boolean;
  /** 128 + signal where a signal ended it, 124 after `timeout`, 127 not found, 126 not executable. */
  exitCode: number;
  stdout: T;
  stderr: T;
  /** The command, or file and arguments joined by spaces. */
  command: string;
  /** Milliseconds from its start to its end, measured in the sandbox. */
  duration: number;
  /** When it started, ISO 8601. */
  timestamp: string;
  /** The signal that ended it, such as "SIGKILL". */
  signal?: string;
  /** Why it ended, where it did not end by itself. */
  reason?: "timeout" | "aborted" | "killed" | "memory" | "stopped";
  /** True where `timeout` ended it. */
  timedOut?: boolean;
  /** True where stdout or stderr is not all there was. */
  truncated?: boolean;
  /** Whether what the shell left behind is in the session now. Absent without a session. */
  stateSaved?: boolean;
  /** Milliseconds of CPU, of the command and the children it waited for. */
  cpuTime: number;
  /** The session it ran in. */
  sessionId?: string;
};

/** An event of `exec` with `stream`, and of `execStream`. */
export type ExecEvent = {
  /** `start` first, then output as it comes, then `complete` or `error` last. */
  type: "start" | "stdout" | "stderr" | "complete" | "error";
  /** ISO 8601. */
  timestamp: string;
  /** Of stdout and stderr: text. */
  data?: string;
  /** Of stdout and stderr: the exact bytes in base64, where they are not the text. */
  bytes?: string;
  /** Of start. */
  pid?: number;
  /** Of start. */
  command?: string;
  /** Of start: the session it runs in. */
  sessionId?: string;
  /** Of complete. */
  exitCode?: number;
  /** Of complete: the whole result, with stdout and stderr up to `maxBuffer`. */
  result?: ExecResult;
  /** Of error: what went wrong, in words. */
  error?: string;
};
