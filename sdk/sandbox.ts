import { SandboxError } from "../protocol/errors.ts";
import type { GitCheckoutResult } from "../protocol/file.ts";
import { ClassName, requireSandboxId } from "../protocol/names.ts";
import type { SandboxInfo } from "../protocol/sandbox.ts";
import { bindingOf } from "./binding.ts";
import type { Content } from "./bytes.ts";
import type { CallOf } from "./call.ts";
import { configOf, nullForUndefined, requireSupported, type SandboxOptions } from "./config.ts";
import { type Connection, defaultConnection } from "./connection.ts";
import type { Variables } from "./exec-options.ts";
import type {
  ExistsResult,
  FileInfo,
  FileResult,
  ListFilesOptions,
  ListFilesResult,
  MoveResult,
  WriteFileOptions,
} from "./file-types.ts";
import type { GitCheckoutOptions } from "./git.ts";
import type { LogRange, Process, ProcessLogs, StartProcessOptions } from "./process-types.ts";
import type { AbstractFields, AbstractStatics, SandboxFields, SandboxStatics } from "./sandbox-fields.ts";
import { containerFetch, type FetchCall, wsConnect } from "./port-fetch.ts";
import type { ExposedPortInfo, ExposePortOptions, ExposePortResult } from "./port-types.ts";
import * as ports from "./ports.ts";
import type { SandboxMethods } from "./sandbox-methods.ts";
import { callIn, now, randomId, type Scope } from "./scope.ts";
import { SessionHandle } from "./session.ts";
import type { Session, SessionOptions } from "./session-methods.ts";
import type { Terminal, TerminalOptions, TerminalViewOptions } from "./terminal.ts";
import type { CheckChangesOptions, CheckChangesResult, WatchOptions } from "./watch.ts";

/** Where a sandbox is: what `getSandbox` gives to the class it makes. */
export type SandboxPlace = {
  connection: Connection;
  id: string;
  options: SandboxOptions;
  /** The name of its class, which the sandbox's record keeps. */
  className?: string | undefined;
  /** Whether its class's callbacks are called. */
  followed?: boolean;
  /** True: it is there and has its options, so they are not told. */
  made?: boolean;
};

const defaultSession = "default";

/** Sandbox at run time; its contract is the interface, and the fields of subclasses. */
class SandboxHandle implements SandboxMethods {
  readonly #place: SandboxPlace;
  #id: string | undefined;
  /** Whether the daemon knows the options; a promise while they are on their way. */
  #told: Promise<void> | true | undefined;
  #session: SessionHandle | undefined;

  /** Not for programs: `getSandbox` makes them. A subclass with a constructor of its own passes its arguments on. */
  constructor(place: SandboxPlace, ..._rest: unknown[]) {
    this.#place = place;
    if (place.made) this.#told = true;
  }

  get id(): string {
    if (this.#id !== undefined) return this.#id;
    const { id, options } = this.#place;
    const normalize = options.normalizeId ?? (this as SandboxFields).normalizeId ?? false;
    const normalized = normalize ? id.toLowerCase() : id;
    requireSandboxId(normalized);
    return (this.#id = normalized);
  }

  // Never: the overloads of the contract say which result belongs to which options, one body cannot.
  exec(...call: [string, ...unknown[]]): Promise<never> {
    return this.#own.exec(...call);
  }

  execStream(...call: [string, ...unknown[]]): Promise<ReadableStream<Uint8Array>> {
    return this.#own.execStream(...call);
  }

  startProcess(command: string, options?: StartProcessOptions): Promise<Process> {
    return this.#own.startProcess(command, options);
  }

  listProcesses(): Promise<Process[]> {
    return this.#own.listProcesses();
  }

  getProcess(id: string): Promise<Process | null> {
    return this.#own.getProcess(id);
  }

  killProcess(id: string, signal?: string): Promise<void> {
    return this.#own.killProcess(id, signal);
  }

  killAllProcesses(): Promise<number> {
    return this.#own.killAllProcesses();
  }

  getProcessLogs(id: string, range?: LogRange): Promise<ProcessLogs> {
    return this.#own.getProcessLogs(id, range);
  }

  streamProcessLogs(
    id: string,
    options?: { signal?: AbortSignal | undefined; after?: number | undefined },
  ): Promise<ReadableStream<Uint8Array>> {
    return this.#own.streamProcessLogs(id, options);
  }

  cleanupCompletedProcesses(): Promise<number> {
    return this.#own.cleanupCompletedProcesses();
  }

  writeFile(path: string, content: Content, options?: WriteFileOptions): Promise<FileResult> {
    return this.#own.writeFile(path, content, options);
  }

  readFile(path: string, options?: { encoding?: "utf-8" | "utf8" | "base64" | "none" | undefined }): Promise<never> {
    return this.#own.readFile(path, options);
  }

  readFileStream(path: string): Promise<ReadableStream<Uint8Array>> {
    return this.#own.readFileStream(path);
  }

  mkdir(path: string, options?: { recursive?: boolean }): Promise<FileResult> {
    return this.#own.mkdir(path, options);
  }

  deleteFile(path: string, options?: { recursive?: boolean }): Promise<FileResult> {
    return this.#own.deleteFile(path, options);
  }

  renameFile(oldPath: string, newPath: string): Promise<MoveResult> {
    return this.#own.renameFile(oldPath, newPath);
  }

  moveFile(sourcePath: string, destinationPath: string): Promise<MoveResult> {
    return this.#own.moveFile(sourcePath, destinationPath);
  }

  exists(path: string): Promise<ExistsResult> {
    return this.#own.exists(path);
  }

  stat(path: string): Promise<FileInfo> {
    return this.#own.stat(path);
  }

  listFiles(path: string, options?: ListFilesOptions): Promise<ListFilesResult> {
    return this.#own.listFiles(path, options);
  }

  uploadArchive(path: string, archive: Content): Promise<FileResult> {
    return this.#own.uploadArchive(path, archive);
  }

  downloadArchive(path: string): Promise<ReadableStream<Uint8Array>> {
    return this.#own.downloadArchive(path);
  }

  createTerminal(options?: TerminalOptions): Promise<Terminal> {
    return this.#own.createTerminal(options);
  }

  terminal(request: Request, options?: TerminalViewOptions): Promise<Response> {
    return this.#own.terminal(request, options);
  }

  createTerminalUrl(options?: TerminalViewOptions & { origin?: string | undefined }): Promise<string> {
    return this.#own.createTerminalUrl(options);
  }

  watch(path: string, options?: WatchOptions): Promise<ReadableStream<Uint8Array>> {
    return this.#own.watch(path, options);
  }

  checkChanges(path: string, options?: CheckChangesOptions): Promise<CheckChangesResult> {
    return this.#own.checkChanges(path, options);
  }

  gitCheckout(repoUrl: string, options?: GitCheckoutOptions): Promise<GitCheckoutResult> {
    return this.#own.gitCheckout(repoUrl, options);
  }

  async setEnvVars(variables: Variables): Promise<void> {
    await this.#set({ envVars: nullForUndefined(variables) });
    // What the default session has exported itself would hide them.
    if (this.#hasDefaultSession()) await this.#own.setEnvVars(variables);
  }

  async createSession(options: SessionOptions = {}): Promise<Session> {
    const { env, ...rest } = options;
    const id = options.id ?? `session-${randomId()}`;
    await callIn(this.#scope(id), "createSession", {
      body: { ...rest, id, ...(env && { env: nullForUndefined(env) }) },
    });
    return new SessionHandle(id, this.#scope(id));
  }

  async getSession(id: string): Promise<Session> {
    const scope = this.#scope(id);
    await scope.ready();
    await scope.transport.json("getSession", { params: { sandbox: this.id, session: id } });
    return new SessionHandle(id, scope);
  }

  async deleteSession(id: string): Promise<{ success: true; sessionId: string; timestamp: string }> {
    const scope = this.#scope(id);
    await scope.ready();
    await scope.transport.json("deleteSession", { params: { sandbox: this.id, session: id } });
    return { success: true, sessionId: id, timestamp: now() };
  }

  async exposePort(port: number, options: ExposePortOptions = {}): Promise<ExposePortResult> {
    return ports.exposePort(this.#scope(null), port, options);
  }

  async unexposePort(port: number): Promise<void> {
    return ports.unexposePort(this.#scope(null), port);
  }

  async getExposedPorts(): Promise<ExposedPortInfo[]> {
    return ports.getExposedPorts(this.#scope(null));
  }

  async isPortExposed(port: number): Promise<boolean> {
    return (await this.getExposedPorts()).some((exposed) => exposed.port === port);
  }

  async validatePortToken(port: number, token: string): Promise<boolean> {
    return ports.validatePortToken(this.#scope(null), port, token);
  }

  async containerFetch(...call: FetchCall): Promise<Response> {
    return containerFetch(this.#scope(null), ...call);
  }

  async wsConnect(request: Request, port: number): Promise<Response> {
    return wsConnect(this.#scope(null), request, port);
  }

  async start(options: { snapshot?: string } = {}): Promise<SandboxInfo> {
    if (options.snapshot !== undefined) {
      throw new SandboxError("NOT_SUPPORTED", `Cannot start "${this.id}" from a snapshot: this version has none`);
    }
    return callIn(this.#scope(null), "start", {});
  }

  async stop(signal?: string): Promise<{ existed: boolean }> {
    return this.#record("stop", { body: { ...(signal !== undefined && { signal }) } });
  }

  async destroy(): Promise<{ existed: boolean }> {
    const outcome = await this.#record("destroy", {});
    this.#told = undefined; // a new sandbox of this name is to have the options too
    return outcome;
  }

  async info(): Promise<SandboxInfo> {
    return this.#record("info", {});
  }

  async setSleepAfter(sleepAfter: string | number): Promise<void> {
    await this.#set({ sleepAfter });
  }

  async setKeepAlive(keepAlive: boolean): Promise<void> {
    await this.#set({ keepAlive });
  }

  async setLabels(labels: Record<string, string>): Promise<void> {
    await this.#set({ labels });
  }

  get #own(): SessionHandle {
    return (this.#session ??= new SessionHandle(
      defaultSession,
      this.#scope(this.#hasDefaultSession() ? defaultSession : null),
    ));
  }

  #hasDefaultSession(): boolean {
    return this.#place.options.enableDefaultSession ?? (this as SandboxFields).enableDefaultSession ?? true;
  }

  #scope(session: string | null): Scope {
    return {
      transport: this.#place.connection.transport,
      sandbox: this.id,
      session,
      directory: session ?? defaultSession,
      ready: () => this.#ready(),
    };
  }

  /** Sends the options, once for all callers; a failed attempt is made again by the next. */
  #ready(): Promise<void> | undefined {
    if (this.#told === true) return undefined;
    if (this.#told) return this.#told;
    const { options, className, followed = false } = this.#place;
    requireSupported(this.id, this, followed);
    const body = configOf(this.id, this, options, className);
    if (!body) {
      this.#told = true;
      return undefined;
    }
    const telling: Promise<void> = this.#place.connection.transport
      .json("configure", { params: { sandbox: this.id }, body })
      .then(
        () => this.#tell(telling, true),
        (error: unknown) => {
          this.#tell(telling, undefined);
          throw error;
        },
      );
    this.#told = telling;
    return telling;
  }

  /** Unless the sandbox was destroyed meanwhile. */
  #tell(telling: Promise<void>, told: true | undefined): void {
    if (this.#told === telling) this.#told = told;
  }

  async #set(settings: NonNullable<CallOf<"set">["body"]>): Promise<void> {
    await callIn(this.#scope(null), "set", { body: settings });
  }

  /** A verb that must not make the sandbox by telling its options. */
  async #record<V extends "stop" | "destroy" | "info">(verb: V, call: Omit<CallOf<V>, "params">) {
    const { connection, followed = false } = this.#place;
    requireSupported(this.id, this, followed);
    const { transport } = connection;
    return transport.json(verb, { params: { sandbox: this.id }, ...call } as unknown as CallOf<V>);
  }
}

/**
 * A named computer. It is there when its first verb is called, sleeps when it is left alone, and continues at the next.
 * Programs get one from `getSandbox`; a subclass may set SandboxFields, and add methods of its own.
 */
export type Sandbox = SandboxMethods & SandboxFields & AbstractFields;
export type SandboxClass<T extends Sandbox = Sandbox> = new (place: SandboxPlace, ...rest: unknown[]) => T;
export const Sandbox = SandboxHandle as unknown as SandboxClass & SandboxStatics & AbstractStatics;

/** A class of sandboxes at a daemon: what an app's `env` holds under the class's name. */
export type SandboxNamespace<T extends Sandbox = Sandbox> = { connection: Connection; sandboxClass: SandboxClass<T> };

/**
 * The sandbox of this name: the same one from anywhere. Nothing is sent before its first verb; then `options`, and the fields
 * of the namespace's class, are told once.
 *
 * `namespace`: an app's binding (`env.MySandbox`), a Connection, or nothing for the default connection. `id`: 1 to 63
 * letters, digits and hyphens, else INVALID_SANDBOX_ID is thrown here.
 */
export function getSandbox<T extends Sandbox = Sandbox>(
  namespace: SandboxNamespace<T> | Connection | null | undefined,
  id: string,
  options?: SandboxOptions,
): T;
export function getSandbox(id: string, options?: SandboxOptions): Sandbox;
export function getSandbox(...call: unknown[]): Sandbox {
  const [namespace, id, options = {}] = (typeof call[0] === "string" ? [undefined, ...call] : call) as [
    SandboxNamespace | Connection | null | undefined,
    string,
    SandboxOptions?,
  ];
  if (typeof id !== "string") throw new SandboxError("INVALID_SANDBOX_ID", "Cannot get a sandbox: its id is no text");
  if (!namespace || !("sandboxClass" in namespace)) {
    return make(Sandbox, { connection: namespace ?? defaultConnection(), id, options });
  }
  const { connection, sandboxClass } = namespace;
  const binding = bindingOf(namespace);
  const className = binding ?? (sandboxClass === Sandbox ? undefined : nameOf(sandboxClass));
  return make(sandboxClass, { connection, id, options, className, followed: binding !== undefined });
}

function make(sandboxClass: SandboxClass, place: SandboxPlace): Sandbox {
  const sandbox = new sandboxClass(place);
  void sandbox.id; // an illegal one is refused here rather than at the first verb
  return sandbox;
}

/** Of a class that no app has bound: told where it can be. */
function nameOf({ name }: SandboxClass): string | undefined {
  return ClassName.safeParse(name).data;
}
