import type { GitCheckoutResult } from "../protocol/file.ts";
import type { Content } from "./bytes.ts";
import type { ExecCallbacks, ExecOptions, ExecResult, Variables } from "./exec-options.ts";
import type {
  ExistsResult,
  FileInfo,
  FileResult,
  ListFilesOptions,
  ListFilesResult,
  MoveResult,
  ReadFileResult,
  ReadFileStreamResult,
  WriteFileOptions,
} from "./file-types.ts";
import type { GitCheckoutOptions } from "./git.ts";
import type { LogRange, Process, ProcessLogs, StartProcessOptions } from "./process-types.ts";
import type { Terminal, TerminalOptions, TerminalViewOptions } from "./terminal.ts";
import type { CheckChangesOptions, CheckChangesResult, WatchOptions } from "./watch.ts";

type Streamed = ExecOptions & { stream: true; onOutput?: undefined };
type Buffered = ExecOptions & ExecCallbacks<Uint8Array> & { encoding: "buffer" };
type Texts = ExecOptions & ExecCallbacks<string>;

/**
 * What can be done in a session: run commands and use files. A sandbox has the same methods, which act in its default
 * session.
 *
 * Every method starts or wakes the sandbox. Besides the errors it names, each may throw the codes that concern them all:
 * UNAUTHORIZED, SANDBOX_UNAVAILABLE, CAPACITY_EXCEEDED, START_TIMEOUT, AGENT_UNREACHABLE, VALIDATION_FAILED, NO_SPACE.
 * Paths that are relative start at the session's directory, "/workspace" at first.
 */
export interface SessionMethods {
  /**
   * Runs a command and waits for its end. A text runs in the session's shell: what it leaves behind (directory,
   * variables, functions, aliases) is there for the next one. A file with arguments runs without a shell, so nothing needs
   * quoting.
   *
   * An exit code other than 0 is a result, not an error. Output is exact, stdout and stderr each in order. The command is
   * complete when its own process has exited; what it left in the background goes on. A lost connection or a restarted
   * daemon loses no output and runs nothing twice. With `stream: true` the result is a Response whose body is
   * server-sent ExecEvents.
   *
   * Throws FILE_NOT_FOUND for a missing `cwd`, SESSION_NOT_FOUND, ABORTED when `signal` aborted before it began.
   */
  exec(command: string, options: Streamed): Promise<Response>;
  exec(command: string, options: Buffered): Promise<ExecResult<Uint8Array>>;
  exec(command: string, options?: Texts): Promise<ExecResult>;
  exec(file: string, args: readonly string[], options: Streamed): Promise<Response>;
  exec(file: string, args: readonly string[], options: Buffered): Promise<ExecResult<Uint8Array>>;
  exec(file: string, args: readonly string[], options?: Texts): Promise<ExecResult>;

  /**
   * The same as a stream of server-sent ExecEvents, for `parseSSEStream`. It resolves when the command has begun.
   * Cancelling the stream does not end the command; `signal` does. Errors as `exec`.
   */
  execStream(command: string, options?: ExecOptions): Promise<ReadableStream<Uint8Array>>;
  execStream(file: string, args: readonly string[], options?: ExecOptions): Promise<ReadableStream<Uint8Array>>;

  /**
   * Starts a command in the session's shell, in the background, and resolves when it runs. It outlives this program and the
   * daemon, and ends with the sandbox's sleep; with `restart` it is started again. It leaves the session as it was. While
   * callbacks follow it, its events keep this program from ending.
   *
   * Throws FILE_NOT_FOUND for a missing `cwd`, RESOURCE_BUSY when another process has the id, SESSION_NOT_FOUND, LIMIT_REACHED.
   */
  startProcess(command: string, options?: StartProcessOptions): Promise<Process>;

  /**
   * The processes of `startProcess` in the sandbox, whichever session started them: those that run, and the last 64 that have
   * ended. Empty while it sleeps; wakes nothing.
   */
  listProcesses(): Promise<Process[]>;

  /** One of them, or null. Wakes nothing. */
  getProcess(id: string): Promise<Process | null>;

  /**
   * Sends a signal (default "SIGTERM") to a process and everything it started, as Process.kill. Of a sandbox that sleeps it
   * ends a service. Throws PROCESS_NOT_FOUND.
   */
  killProcess(id: string, signal?: string): Promise<void>;

  /** Sends SIGTERM to every one of them and ends all services; gives how many ran. Commands of `exec` go on. */
  killAllProcesses(): Promise<number>;

  /** What a process has printed, of the last MiB. Throws PROCESS_NOT_FOUND. */
  getProcessLogs(id: string, range?: LogRange): Promise<ProcessLogs>;

  /**
   * What a process has printed and prints, as server-sent LogEvents, for `parseSSEStream`. `after` passes over so many bytes:
   * the `offset` of an event that was seen. A stream that nothing comes through keeps no sandbox from sleeping.
   *
   * Throws PROCESS_NOT_FOUND.
   */
  streamProcessLogs(
    id: string,
    options?: { signal?: AbortSignal | undefined; after?: number | undefined },
  ): Promise<ReadableStream<Uint8Array>>;

  /** Forgets ended processes and what they printed, but services; gives how many. */
  cleanupCompletedProcesses(): Promise<number>;

  /**
   * Replaces a file whole or not at all, and makes the directories above it. Text is written as UTF-8; a stream is written
   * as it comes, whatever its length. Mode, owner and symlinks of a former file are kept.
   *
   * Throws IS_DIRECTORY, NOT_DIRECTORY, NO_SPACE, READ_ONLY. What a stream throws is thrown, and the old file is still whole.
   */
  writeFile(path: string, content: Content, options?: WriteFileOptions): Promise<FileResult>;

  /**
   * A file's content. Without `encoding`, a UTF-8 file is text and any other is base64, as the result's `encoding` says;
   * "utf-8" and "base64" force one; "none" gives a stream, for files of any size.
   *
   * Throws FILE_NOT_FOUND, IS_DIRECTORY.
   */
  readFile(path: string, options: { encoding: "none" }): Promise<ReadFileStreamResult>;
  readFile(path: string, options?: { encoding?: "utf-8" | "utf8" | "base64" | undefined }): Promise<ReadFileResult>;

  /**
   * A file as server-sent FileStreamEvents, for `streamFile` and `collectFile`: `metadata`, then `chunk`s, then `complete`
   * or `error`. Whether it is text is told by its first bytes.
   *
   * Throws FILE_NOT_FOUND, IS_DIRECTORY.
   */
  readFileStream(path: string): Promise<ReadableStream<Uint8Array>>;

  /** Makes a directory; with `recursive` also those above it, and one that is there is no error. Throws FILE_EXISTS, FILE_NOT_FOUND, NOT_DIRECTORY. */
  mkdir(path: string, options?: { recursive?: boolean }): Promise<FileResult>;

  /** Removes a file; with `recursive` a directory and all in it. Throws FILE_NOT_FOUND, IS_DIRECTORY. */
  deleteFile(path: string, options?: { recursive?: boolean }): Promise<FileResult>;

  /** Gives a file or directory another name. Throws FILE_NOT_FOUND, NOT_EMPTY. */
  renameFile(oldPath: string, newPath: string): Promise<MoveResult>;

  /** Moves a file or directory. Throws FILE_NOT_FOUND, NOT_EMPTY. */
  moveFile(sourcePath: string, destinationPath: string): Promise<MoveResult>;

  /** Whether something is at a path; a symlink counts, wherever it leads. */
  exists(path: string): Promise<ExistsResult>;

  /** What is at a path. Throws FILE_NOT_FOUND. */
  stat(path: string): Promise<FileInfo>;

  /** What is in a directory, however much. Throws FILE_NOT_FOUND, NOT_DIRECTORY. */
  listFiles(path: string, options?: ListFilesOptions): Promise<ListFilesResult>;

  /** Unpacks a tar stream into a directory, which is made if missing. Nothing in it can lead out of the sandbox. */
  uploadArchive(path: string, archive: Content): Promise<FileResult>;

  /** A directory's content, or one file, as a tar stream. Throws FILE_NOT_FOUND. */
  downloadArchive(path: string): Promise<ReadableStream<Uint8Array>>;

  /**
   * Begins a terminal with a shell of its own, or `command`, in the session's directory; with the `id` of one that runs, that
   * one is looked at. It outlives the program, the connection and the daemon, until its program ends, `close` or sleep.
   *
   * Throws NOT_SUPPORTED where there is no WebSocket (Node before 22), FILE_NOT_FOUND for a missing `cwd`, LIMIT_REACHED
   * where the sandbox has 256.
   */
  createTerminal(options?: TerminalOptions): Promise<Terminal>;

  /**
   * Passes a browser's WebSocket on to the terminal of this session (begun when it is not there), in an app that can answer
   * with an upgraded one. The Response is 426 for a request that asks for none.
   *
   * Throws NOT_SUPPORTED where a Response cannot be a WebSocket, as in plain Node: there let the browser come to the daemon
   * itself, with a ticket (`createTerminalUrl`).
   */
  terminal(request: Request, options?: TerminalViewOptions): Promise<Response>;

  /**
   * A URL that opens the terminal of this session once, within 60 s, for a browser's WebSocket: it holds a ticket, never the
   * token. `origin`: only for pages from there.
   */
  createTerminalUrl(options?: TerminalViewOptions & { origin?: string | undefined }): Promise<string>;

  /**
   * What happens in a directory, as server-sent FileWatchSSEEvents for `parseSSEStream`. Resolves when the watch is set:
   * what happens from then on is told, also in directories that are made meanwhile. Changes of one kind to one file within
   * 75 ms are told at most twice. Where events were lost an `error` with `overflow` says so, and the watch goes on. A watch
   * in which nothing happens lets the sandbox sleep; then it is `stopped`. Cancel the stream to end it.
   *
   * Throws FILE_NOT_FOUND, NOT_DIRECTORY, LIMIT_REACHED, VALIDATION_FAILED for `include` together with `exclude`.
   */
  watch(path: string, options?: WatchOptions): Promise<ReadableStream<Uint8Array>>;

  /**
   * Whether anything has happened in a directory since the version of an earlier answer to the same question, for callers
   * that were away. Without `since` it is "unchanged", with the version to begin at. Errors as `watch`.
   */
  checkChanges(path: string, options?: CheckChangesOptions): Promise<CheckChangesResult>;

  /**
   * Clones a git repository: by http, https, ssh, or from a path inside the sandbox.
   *
   * Throws INVALID_GIT_URL, GIT_REPOSITORY_NOT_FOUND, GIT_BRANCH_NOT_FOUND, GIT_AUTH_FAILED, GIT_NETWORK_ERROR,
   * GIT_CLONE_FAILED, each with git's own words.
   */
  gitCheckout(repoUrl: string, options?: GitCheckoutOptions): Promise<GitCheckoutResult>;

  /** Sets environment variables of the commands to come; undefined or null unsets one. */
  setEnvVars(variables: Variables): Promise<void>;
}

/**
 * Saved shell state of a sandbox: what a command leaves behind is there for the next. Commands of one session may run at
 * the same time; each starts from the state of its start. Made by `createSession` and `getSession`.
 */
export interface Session extends SessionMethods {
  readonly id: string;
}

/** How a session begins. */
export type SessionOptions = {
  /** 1 to 64 letters, digits, dots, underscores and hyphens. Default: a random one. */
  id?: string | undefined;
  /** Variables the session has beside those of the sandbox; undefined or null unsets one. */
  env?: Variables | undefined;
  /** Directory it starts in. Default "/workspace". */
  cwd?: string | undefined;
  /** Time limit, in milliseconds, of commands that name none. Default: none. */
  commandTimeoutMs?: number | undefined;
};
