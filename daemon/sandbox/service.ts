import { randomUUID } from "node:crypto";
import type { AgentProcess, ProcessEnd } from "../../protocol/agent.ts";
import { type ErrorBody, SandboxError } from "../../protocol/errors.ts";
import type { ExecRequest } from "../../protocol/process.ts";
import type { Link } from "../link/link.ts";
import type { Log } from "../log.ts";
import type { Activity } from "./activity.ts";
import { processPath } from "./process-log.ts";
import { toSpec } from "./process-spec.ts";
import type { SandboxRecord } from "./record.ts";
import type { Service, ServiceTable } from "./service-table.ts";

/** The pause before the first restart, doubled up to the last: at once for a hiccup, calm for what cannot work. */
const firstPauseMs = 1_000;
const lastPauseMs = 30_000;

/** A process that has lived this long worked: its next failure is a first one. */
const healthyMs = 60_000;

/** What services need of the run that they live in. */
export type ServiceHost = {
  readonly row: { sandboxKey: string };
  readonly number: number;
  readonly link: Link;
  readonly activity: Activity;
  readonly stopping: boolean;
  readonly record: SandboxRecord;
  noteCommand(id: string, note: unknown): void;
  listProcesses(): Promise<AgentProcess[]>;
};

/** One service in this run. */
type State = {
  failures: number;
  timer?: NodeJS.Timeout;
  /** Gives back the processor time of a restart that may fail as well. */
  uncounted?: (cpuMs: number) => void;
  /** Why it could not be started. */
  error?: ErrorBody;
  triedAtMs: number;
};

/**
 * The services of one run: starts them when the run begins, and those of "on-failure" again when they fail. What it knows
 * of them is the table and what the agent lists, so the next daemon goes on where this one ends.
 */
export class Services {
  readonly #run: ServiceHost;
  readonly #table: ServiceTable;
  readonly #log: Log;
  readonly #states = new Map<string, State>();
  readonly #begun = Promise.withResolvers<void>();
  #closed = false;

  constructor(run: ServiceHost, table: ServiceTable, log: Log) {
    this.#run = run;
    this.#table = table;
    this.#log = log;
  }

  /** The services there are, in the order in which they were made. */
  list(): Service[] {
    return this.#table.of(this.#key);
  }

  restartOf(id: string): Service["restart"] | undefined {
    return this.#table.find(this.#key, id)?.restart;
  }

  /** Why and when a service could not be started. */
  failureOf(id: string): { error: ErrorBody; atMs: number } | undefined {
    const state = this.#states.get(id);
    return state?.error && { error: state.error, atMs: state.triedAtMs };
  }

  /** Resolves when every service that this run begins with has been started, or could not be. */
  async begun(): Promise<void> {
    if (this.list().some((service) => service.run !== this.#run.number)) await this.#begun.promise;
  }

  /**
   * Compares what should run with what does. Called when the agent's events begin to be heard: at the run's start, after a
   * daemon's restart, and after events were lost.
   */
  async look(): Promise<void> {
    try {
      const services = this.list();
      if (services.length === 0) return;
      const processes = new Map((await this.#run.listProcesses()).map((process) => [process.id, process]));
      await Promise.all(services.map((service) => this.#lookAt(service, processes.get(service.id))));
    } finally {
      this.#begun.resolve();
    }
  }

  /** A background process was started, or asked for again: from now on it is this kind of service, or none. */
  adopt(request: ExecRequest): void {
    const { processId: id, restart } = request;
    this.#quiet(id);
    this.#states.delete(id);
    if (restart === "never") this.#table.remove(this.#key, id);
    else this.#table.put({ sandboxKey: this.#key, id, restart, request, run: this.#run.number });
  }

  /** Somebody ends it: it is a service no longer. */
  forget(id: string): void {
    this.#quiet(id);
    this.#states.delete(id);
    this.#table.remove(this.#key, id);
  }

  forgetAll(): void {
    for (const { id } of this.list()) this.forget(id);
  }

  /** A process has ended, by itself or not. */
  ended(id: string, end: ProcessEnd): void {
    const state = this.#states.get(id);
    state?.uncounted?.(end.cpuTimeMs);
    delete state?.uncounted;
    const service = this.#table.find(this.#key, id);
    if (service?.restart !== "on-failure" || end.exitCode === 0) return;
    if (end.durationMs >= healthyMs && state) state.failures = 0;
    this.#again(service);
  }

  close(): void {
    this.#closed = true;
    this.#begun.resolve();
    for (const id of this.#states.keys()) this.#quiet(id);
  }

  get #key(): string {
    return this.#run.row.sandboxKey;
  }

  async #lookAt(service: Service, process: AgentProcess | undefined): Promise<void> {
    if (process?.end) this.ended(service.id, process.end);
    else if (!process && (service.run !== this.#run.number || service.restart === "on-failure")) {
      if (!this.#states.get(service.id)?.timer) await this.#start(service);
    }
  }

  /** Starts it after a pause, unless that is to come already. */
  #again({ id }: Service): void {
    const state = this.#stateOf(id);
    if (this.#closed || this.#run.stopping || state.timer) return;
    const pauseMs = Math.min(firstPauseMs * 2 ** state.failures, lastPauseMs);
    state.failures = Math.min(state.failures + 1, 10);
    state.timer = setTimeout(() => {
      delete state.timer;
      const service = this.#table.find(this.#key, id);
      if (service) void this.#start(service);
    }, pauseMs);
  }

  /** Never throws: nobody waits for it. */
  async #start(service: Service): Promise<void> {
    const { id } = service;
    const run = this.#run;
    const state = this.#stateOf(id);
    state.triedAtMs = Date.now();
    if (state.failures > 0) state.uncounted = run.activity.uncount(healthyMs);
    try {
      // each start is one of its own: the ended one's id is given to it, and only if none runs
      const spec = toSpec(run.record, { ...service.request, attempt: randomUUID() });
      run.noteCommand(id, spec.note);
      const response = await run.link.open("/processes", { method: "POST", json: spec });
      response.destroy();
      delete state.error;
      const now = this.#table.find(this.#key, id);
      if (now) this.#table.setRun(this.#key, id, run.number);
      else await stopProcess(run.link, id); // somebody ended it meanwhile
    } catch (error) {
      state.uncounted?.(0);
      delete state.uncounted;
      if (SandboxError.is(error, "RESOURCE_BUSY")) return; // it runs: somebody has started it meanwhile
      if (this.#closed || run.stopping) return;
      const why = SandboxError.is(error) ? error : new SandboxError("INTERNAL_ERROR", (error as Error).message);
      state.error = why.toJSON();
      this.#log.warn({ sandbox: this.#key, service: id, error: why.message }, "cannot start a service");
      if (service.restart === "on-failure") this.#again(service);
    }
  }

  #stateOf(id: string): State {
    let state = this.#states.get(id);
    if (!state) this.#states.set(id, (state = { failures: 0, triedAtMs: Date.now() }));
    return state;
  }

  #quiet(id: string): void {
    const state = this.#states.get(id);
    if (!state) return;
    clearTimeout(state.timer);
    delete state.timer;
    state.uncounted?.(0);
    delete state.uncounted;
  }
}

/** The services of a run, for whoever needs one of them to be up. */
export function servicesOf(run: { services: Services }): Services {
  return run.services;
}

const endingSignals: ReadonlySet<string> = new Set(["SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT"]);

/** Whether who sends this signal wants the process to end; SIGHUP is how many a server is told to read its files again. */
export function isEnding(signal: string): boolean {
  return endingSignals.has(signal);
}

async function stopProcess(link: Link, id: string): Promise<void> {
  const path = `${processPath(id)}/stop`;
  const response = await link.open(path, { method: "POST", json: { reason: "killed" } });
  response.resume();
}
