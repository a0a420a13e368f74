import type { Socket } from "node:net";
import { z } from "zod";
import { AgentProcess, type ProcessEnd } from "../../protocol/agent.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { CpuMeter } from "../linux/cgroup.ts";
import { ageMs, stateOf } from "../linux/process.ts";
import { readEvents } from "../link/events.ts";
import type { Link } from "../link/link.ts";
import { type Slot, slotAt } from "../network/slot.ts";
import { Activity } from "./activity.ts";
import type { Expiry } from "./expiry.ts";
import { groupOf, type Machines } from "./machines.ts";
import type { RunEnd, RunRecord, SandboxRecord } from "./record.ts";
import { Services } from "./service.ts";

/** Commands whose end has not been journalled yet; an agent that invents processes must not fill our memory. */
const notedLimit = 10_000;

const AgentProcesses = z.object({ processes: z.array(AgentProcess) });

/** A few thousand processes, each with the beginning of its command. */
const listLimitBytes = 8 * 1024 * 1024;

/** A live run: what verbs act on. It follows the agent's events, and tells `onLost` when the run turns out to be dead. */
export class Run {
  readonly row: RunRecord;
  readonly link: Link;
  readonly activity: Activity;
  readonly services: Services;
  /** Set when this daemon ends the run: what its processes die of is then "stopped". */
  stopping = false;
  /** Set while it is due to sleep and somebody was told. */
  expiry: Expiry | undefined;
  readonly #machines: Machines;
  readonly #ended = Promise.withResolvers<RunEnd>();
  readonly #closed = new AbortController();
  readonly #cpu: CpuMeter;
  readonly #commands = new Map<string, unknown>();
  readonly #connections = new Set<Socket>();
  readonly #onLost: (run: Run) => void;

  constructor(machines: Machines, started: { row: RunRecord; link: Link }, onLost: (run: Run) => void) {
    this.#machines = machines;
    this.row = started.row;
    this.link = started.link;
    this.#onLost = onLost;
    this.#cpu = machines.cgroups.cpuMeter(this.group);
    this.activity = new Activity(
      () => this.#cpu.readNs(),
      started.row.process && ageMs(started.row.process) - started.row.waitedMs,
    );
    this.services = new Services(this, machines.services, machines.log);
    void this.#follow();
  }

  /** Asks the agent of a run that was taken over what runs, so that the ends of those commands are journalled too. */
  async recallCommands(): Promise<void> {
    for (const { id, note, end } of await this.listProcesses()) if (!end) this.noteCommand(id, note);
  }

  /** What the agent knows: those that run, and ended ones whose log is still there. */
  async listProcesses(): Promise<AgentProcess[]> {
    const options = { jsonLimitBytes: listLimitBytes };
    return (await this.link.call(AgentProcesses, "/processes", options)).processes;
  }

  get number(): number {
    return this.row.number;
  }

  /** Its place in the network. */
  get slot(): Slot | undefined {
    return this.row.slot === undefined ? undefined : slotAt(this.#machines.config.tag, this.row.slot);
  }

  /** Whether an app is told that it began, and may start servers then. */
  get isFollowed(): boolean {
    const className = this.#machines.records.findByKey(this.row.sandboxKey)?.config.className;
    return className !== undefined && this.#machines.followers.has(className);
  }

  get group(): string {
    return groupOf(this.#machines, this.row.id);
  }

  /** The sandbox's row as it is now. Throws SANDBOX_NOT_FOUND when it was destroyed meanwhile. */
  get record(): SandboxRecord {
    const record = this.#machines.records.findByKey(this.row.sandboxKey);
    if (record) return record;
    throw new SandboxError("SANDBOX_NOT_FOUND", "Cannot use the sandbox: it was destroyed meanwhile");
  }

  isAlive(): boolean {
    return this.row.process !== undefined && stateOf(this.row.process) === "alive";
  }

  /** How the run ended, when it has or is about to; undefined when it lives and only an answer was lost. */
  async endIfDead(): Promise<RunEnd | undefined> {
    if (!this.stopping && this.isAlive()) return undefined;
    if (!this.stopping) this.#onLost(this);
    return this.#ended.promise;
  }

  /** A connection of ours into its namespace, which cannot go before all such connections have: it ends with the run. */
  keep(connection: Socket): void {
    this.#connections.add(connection);
    connection.once("close", () => this.#connections.delete(connection));
  }

  /** Remembers what a process is, for its line in the journal. */
  noteCommand(id: string, note: unknown): void {
    if (this.#commands.size < notedLimit) this.#commands.set(id, note);
  }

  /** A process that was killed because we end the run was stopped; the agent cannot know. */
  explain(end: ProcessEnd): ProcessEnd {
    return this.stopping && end.signal !== undefined && end.reason === undefined ? { ...end, reason: "stopped" } : end;
  }

  /** The run is over and everything given back: whoever waits for it learns how it ended. */
  close(end: RunEnd): void {
    this.leave();
    this.#ended.resolve(end);
  }

  /** Ends our side only: the run goes on without this daemon. */
  leave(): void {
    this.#closed.abort();
    this.#cpu.close();
    this.services.close();
    this.link.close();
    for (const connection of this.#connections) connection.destroy();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closed;
    for (let waitMs = 10; !signal.aborted; waitMs = Math.min(waitMs * 2, 5_000)) {
      try {
        let heard = false;
        for await (const event of readEvents(this.link, signal)) {
          waitMs = 10;
          if (event.type === "processEnded") this.#processEnded(event.id, event.end);
          if (heard) continue;
          heard = true;
          this.#lookAtServices();
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#machines.log.debug({ run: this.row.id, error: (error as Error).message }, "events of an agent broke off");
      }
      if (signal.aborted) return;
      if (!this.isAlive()) return this.#onLost(this);
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  /** What happened while nobody listened is not told again: it is looked at. */
  #lookAtServices(): void {
    this.services.look().catch((error: Error) => {
      if (this.#closed.signal.aborted) return;
      this.#machines.log.warn({ run: this.row.id, error: error.message }, "cannot look after a sandbox's services");
    });
  }

  #processEnded(id: string, end: ProcessEnd): void {
    this.#journalEnd(id, end);
    if (!this.stopping) this.services.ended(id, end);
  }

  /** Only what we have started: an agent that invents processes must not fill the journal. */
  #journalEnd(id: string, end: ProcessEnd): void {
    const note = this.#commands.get(id);
    if (!this.#commands.delete(id)) return;
    const { sandboxKey, number } = this.row;
    const data = { id, ...(note as object | undefined), ...end };
    this.#machines.journal.append({ time: Date.now(), sandboxKey, run: number, type: "process", data });
  }
}
