import type { GitCheckoutResult } from "../protocol/file.ts";
import type { Content } from "./bytes.ts";
import type { Command } from "./command.ts";
import { nullForUndefined } from "./config.ts";
import { exec, execResponse, execStream } from "./exec.ts";
import type { ExecCallbacks, ExecOptions, Variables } from "./exec-options.ts";
import { readFileStream } from "./file-stream.ts";
import type {
  ExistsResult,
  FileInfo,
  FileResult,
  ListFilesOptions,
  ListFilesResult,
  MoveResult,
  WriteFileOptions,
} from "./file-types.ts";
import * as files from "./files.ts";
import { gitCheckout, type GitCheckoutOptions } from "./git.ts";
import { readLogs, streamLogs } from "./process-logs.ts";
import type { LogRange, Process, ProcessLogs, StartProcessOptions } from "./process-types.ts";
import * as processes from "./process.ts";
import type { Scope } from "./scope.ts";
import type { Session } from "./session-methods.ts";
import { createTerminal, createTerminalUrl, terminal } from "./terminal.ts";
import type { Terminal, TerminalOptions, TerminalViewOptions } from "./terminal.ts";
import { checkChanges, watch } from "./watch.ts";
import type { CheckChangesOptions, CheckChangesResult, WatchOptions } from "./watch.ts";

type AnyExecOptions = ExecOptions & ExecCallbacks<string> & ExecCallbacks<Uint8Array>;

/** Session at run time; its contract is the interface. */
export class SessionHandle implements Session {
  readonly id: string;
  readonly #scope: Scope;

  constructor(id: string, scope: Scope) {
    this.id = id;
    this.#scope = scope;
  }

  // Never: the overloads of the contract say which result belongs to which options, one body cannot.
  exec(...call: [string, ...unknown[]]): Promise<never> {
    const { command, options } = read(call);
    const streamed = options.stream && !options.onOutput;
    return (streamed ? execResponse : exec)(this.#scope, command, options) as Promise<never>;
  }

  execStream(...call: [string, ...unknown[]]): Promise<ReadableStream<Uint8Array>> {
    const { command, options } = read(call);
    return execStream(this.#scope, command, options);
  }

  startProcess(command: string, options: StartProcessOptions = {}): Promise<Process> {
    return processes.startProcess(this.#scope, command, options);
  }

  listProcesses(): Promise<Process[]> {
    return processes.listProcesses(this.#scope);
  }

  getProcess(id: string): Promise<Process | null> {
    return processes.getProcess(this.#scope, id);
  }

  killProcess(id: string, signal?: string): Promise<void> {
    return processes.killProcess(this.#scope, id, signal);
  }

  killAllProcesses(): Promise<number> {
    return processes.killAllProcesses(this.#scope);
  }

  getProcessLogs(id: string, range: LogRange = {}): Promise<ProcessLogs> {
    return readLogs(this.#scope, id, range);
  }

  streamProcessLogs(
    id: string,
    options: { signal?: AbortSignal | undefined; after?: number | undefined } = {},
  ): Promise<ReadableStream<Uint8Array>> {
    return streamLogs(this.#scope, id, options);
  }

  cleanupCompletedProcesses(): Promise<number> {
    return processes.cleanupCompletedProcesses(this.#scope);
  }

  writeFile(path: string, content: Content, options: WriteFileOptions = {}): Promise<FileResult> {
    return files.writeFile(this.#scope, path, content, options);
  }

  readFile(
    path: string,
    options: { encoding?: "utf-8" | "utf8" | "base64" | "none" | undefined } = {},
  ): Promise<never> {
    return files.readFile(this.#scope, path, options.encoding) as Promise<never>;
  }

  readFileStream(path: string): Promise<ReadableStream<Uint8Array>> {
    return readFileStream(this.#scope, path);
  }

  mkdir(path: string, options: { recursive?: boolean } = {}): Promise<FileResult> {
    return files.mkdir(this.#scope, path, options);
  }

  deleteFile(path: string, options: { recursive?: boolean } = {}): Promise<FileResult> {
    return files.deleteFile(this.#scope, path, options);
  }

  renameFile(oldPath: string, newPath: string): Promise<MoveResult> {
    return files.moveFile(this.#scope, oldPath, newPath);
  }

  moveFile(sourcePath: string, destinationPath: string): Promise<MoveResult> {
    return files.moveFile(this.#scope, sourcePath, destinationPath);
  }

  exists(path: string): Promise<ExistsResult> {
    return files.exists(this.#scope, path);
  }

  stat(path: string): Promise<FileInfo> {
    return files.stat(this.#scope, path);
  }

  listFiles(path: string, options: ListFilesOptions = {}): Promise<ListFilesResult> {
    return files.listFiles(this.#scope, path, options);
  }

  uploadArchive(path: string, archive: Content): Promise<FileResult> {
    return files.uploadArchive(this.#scope, path, archive);
  }

  downloadArchive(path: string): Promise<ReadableStream<Uint8Array>> {
    return files.downloadArchive(this.#scope, path);
  }

  createTerminal(options: TerminalOptions = {}): Promise<Terminal> {
    return createTerminal(this.#scope, options);
  }

  terminal(request: Request, options: TerminalViewOptions = {}): Promise<Response> {
    return terminal(this.#scope, request, options);
  }

  createTerminalUrl(options: TerminalViewOptions & { origin?: string | undefined } = {}): Promise<string> {
    return createTerminalUrl(this.#scope, options);
  }

  watch(path: string, options: WatchOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return watch(this.#scope, path, options);
  }

  checkChanges(path: string, options: CheckChangesOptions = {}): Promise<CheckChangesResult> {
    return checkChanges(this.#scope, path, options);
  }

  gitCheckout(repoUrl: string, options: GitCheckoutOptions = {}): Promise<GitCheckoutResult> {
    return gitCheckout(this.#scope, repoUrl, options);
  }

  async setEnvVars(variables: Variables): Promise<void> {
    await this.#scope.ready();
    await this.#scope.transport.json("setSessionEnv", {
      params: { sandbox: this.#scope.sandbox, session: this.id },
      body: { env: nullForUndefined(variables) },
    });
  }
}

/** `(command, options?)` or `(file, args, options?)`. */
function read([first, second, third]: [string, ...unknown[]]): { command: Command; options: AnyExecOptions } {
  if (Array.isArray(second)) {
    return { command: { argv: [first, ...(second as string[])] }, options: (third ?? {}) as AnyExecOptions };
  }
  return { command: { command: first }, options: (second ?? {}) as AnyExecOptions };
}
