import { type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { SandboxError } from "../../protocol/errors.ts";
import type { Log } from "../log.ts";
import type { Machines } from "../sandbox/machines.ts";
import type { PortRow } from "../sandbox/port-table.ts";
import { findPreview } from "../sandbox/port.ts";
import type { Run } from "../sandbox/run.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { requireToken, type Tokens } from "./access.ts";
import type { Visitor } from "./preview-headers.ts";
import { showTrouble, troubleOf } from "./preview-page.ts";
import { type Passage, relay } from "./preview-relay.ts";
import { relayUpgrade } from "./preview-upgrade.ts";

/** What a request wants to see: a preview by its label, or with the API's token a port as such. */
export type Sight = {
  /** Path and query for the inner server. */
  path: string;
  /** Whether other previews have the same origin. */
  shared: boolean;
  /** Whether the request must open the API: an app passes a visitor's on. */
  needsToken: boolean;
  /** Whether who asks wants no redirect, but its status in a header (DESIGN.md, Wire). */
  redirectsAs200?: boolean;
  visitor: Visitor;
} & ({ label: string } | { sandbox: string; port: number });

/** A sandbox that takes longer to wake, and its server to listen, is tried again by the visitor. */
const readyMs = 15_000;

/** A server that thinks longer before it answers no longer keeps its sandbox awake by that alone. */
const thinkingMs = 10 * 60_000;

/** More than a page with all its streams wants; each takes two descriptors of ours, of which others need some too. */
const visitsPerSandbox = 512;
const visitsInAll = 4_096;

/** The previews: everything that visitors get from ports of sandboxes. */
export class Previews {
  readonly #machines: Machines;
  readonly #sandboxes: Sandboxes;
  readonly #tokens: Tokens;
  readonly #log: Log;
  readonly #open: Visit[] = [];
  readonly #openOf = new Map<string, { visits: number }>();
  /** Those of rows whose end cuts off who visits them. */
  readonly #watched = new WeakSet<AbortSignal>();

  constructor(machines: Machines, sandboxes: Sandboxes, tokens: Tokens) {
    this.#machines = machines;
    this.#sandboxes = sandboxes;
    this.#tokens = tokens;
    this.#log = machines.log;
    setInterval(() => this.#releaseThinking(), thinkingMs / 10).unref();
  }

  /** Answers one request; never throws. */
  show(request: IncomingMessage, response: ServerResponse, sight: Sight): Promise<void> {
    return this.#visit(request, response, sight, (visit) => relay(request, response, visit));
  }

  /** Answers a request for another protocol on its bare socket; never throws. */
  async upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, sight: Sight): Promise<void> {
    // at once: a stream that has ended meanwhile takes nothing back
    if (head.length > 0) socket.unshift(head);
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket as never);
    // not end: with bytes in it that nobody reads the socket would never close
    response.once("finish", () => (socket as Socket).destroySoon());
    socket.on("error", () => socket.destroy());
    await this.#visit(request, response, sight, (visit) => relayUpgrade(request, socket, response, visit));
  }

  async #visit(
    request: IncomingMessage,
    response: ServerResponse,
    sight: Sight,
    pass: (passage: Passage) => Promise<unknown>,
  ): Promise<void> {
    let visit: Visit | undefined;
    try {
      visit = this.#letIn(new Visit(response, sight, this.#find(request, sight)));
      const { sandbox } = visit.place;
      visit.begin(this.#sandboxes.enterIfAwake(sandbox) ?? (await this.#sandboxes.enter(sandbox, visit.within())));
      await pass(visit);
    } catch (error) {
      this.#tell(request, response, error, "sandbox" in sight);
    } finally {
      if (visit) this.#letOut(visit);
    }
  }

  /** The sandbox and port, when the request may see them. Nothing is woken before. */
  #find(request: IncomingMessage, sight: Sight): Place {
    if (sight.needsToken) requireToken(request.headers.authorization, this.#tokens);
    if ("sandbox" in sight) return { sandbox: sight.sandbox, port: sight.port, row: undefined };
    const row = findPreview(this.#machines.ports, sight.label);
    const record = row && this.#machines.records.findByKey(row.sandboxKey);
    if (!row || !record) throw new SandboxError("PORT_NOT_EXPOSED", "Cannot find a preview of this address");
    if (row.auth === "bearer") requireToken(sight.visitor.authorization, this.#tokens);
    return { sandbox: record.name, port: row.port, row };
  }

  #letIn(visit: Visit): Visit {
    const { sandbox, row } = visit.place;
    const ofSandbox = this.#openOf.get(sandbox) ?? { visits: 0 };
    if (ofSandbox.visits >= visitsPerSandbox || this.#open.length >= visitsInAll) {
      throw new SandboxError("SANDBOX_UNAVAILABLE", `Cannot take another request: ${ofSandbox.visits} are under way`);
    }
    if (ofSandbox.visits++ === 0) this.#openOf.set(sandbox, ofSandbox);
    visit.index = this.#open.push(visit) - 1;
    if (row) this.#watch(row.gone);
    return visit;
  }

  #letOut(visit: Visit): void {
    visit.end();
    const last = this.#open.pop()!;
    if (last !== visit) {
      this.#open[visit.index] = last;
      last.index = visit.index;
    }
    const { sandbox } = visit.place;
    const ofSandbox = this.#openOf.get(sandbox)!;
    if (--ofSandbox.visits === 0) this.#openOf.delete(sandbox);
  }

  /** A listener for each visit would cost more than the rest of it. */
  #watch({ signal }: AbortController): void {
    if (this.#watched.has(signal)) return;
    this.#watched.add(signal);
    const cut = () => this.#open.filter(({ place }) => place.row?.gone.signal === signal).forEach((it) => it.cut());
    signal.addEventListener("abort", cut, { once: true });
  }

  #releaseThinking(): void {
    const longAgoMs = performance.now() - thinkingMs;
    for (const visit of this.#open) if (visit.beganMs < longAgoMs) visit.release();
  }

  #tell(request: IncomingMessage, response: ServerResponse, thrown: unknown, forProgram: boolean): void {
    if (response.headersSent || response.destroyed || response.socket === null) return void request.socket.destroy();
    const error = SandboxError.is(thrown)
      ? thrown
      : new SandboxError("INTERNAL_ERROR", "Cannot finish the request: something is wrong with the daemon");
    if (error !== thrown) this.#log.error({ error: (thrown as Error).stack ?? String(thrown) }, "a preview failed");
    showTrouble(request, response, troubleOf(error), forProgram);
  }
}

/** Where a request goes. `row`: of the preview that it came by. */
type Place = { sandbox: string; port: number; row: PortRow | undefined };

/** One request, from when it is let in until it has been answered. One object for all that: small answers are many. */
class Visit implements Passage {
  readonly place: Place;
  readonly port: number;
  readonly path: string;
  readonly shared: boolean;
  readonly redirectsAs200: boolean;
  readonly visitor: Visitor;
  readonly beganMs = performance.now();
  /** Its place among those that are open. */
  index = -1;
  readonly #response: ServerResponse;
  #run: Run | undefined;
  #hold: Disposable | undefined;
  // made when needed: most requests find all they want
  #over: AbortController | undefined;
  #patience: NodeJS.Timeout | undefined;

  constructor(response: ServerResponse, { path, shared, redirectsAs200 = false, visitor }: Sight, place: Place) {
    this.#response = response;
    this.place = place;
    this.port = place.port;
    this.path = path;
    this.shared = shared;
    this.redirectsAs200 = redirectsAs200;
    // for a preview that asks for the token, that header was for us
    this.visitor = place.row?.auth === "bearer" ? { ...visitor, authorization: undefined } : visitor;
  }

  get run(): Run {
    return this.#run!;
  }

  /** The sandbox is awake, and held so until the server answers. */
  begin({ run, hold }: { run: Run; hold: Disposable }): void {
    this.#run = run;
    this.#hold = hold;
  }

  within(): AbortSignal {
    if (!this.#over) {
      this.#over = new AbortController();
      this.#patience = setTimeout(() => this.#giveUp(notReady()), readyMs);
      this.#response.once("close", this.#onGone);
      if (this.#response.destroyed || this.#response.req.socket.destroyed) this.#onGone();
    }
    return this.#over.signal;
  }

  onAnswer(): void {
    if (this.#patience) clearTimeout(this.#patience);
    this.release();
  }

  /** It keeps its sandbox awake no longer. */
  release(): void {
    this.#hold?.[Symbol.dispose]();
  }

  /** The preview was taken back. */
  cut(): void {
    this.#giveUp(new SandboxError("PORT_NOT_EXPOSED", "Cannot go on: the preview was taken back"));
    this.#response.req.socket.destroy();
  }

  end(): void {
    this.onAnswer();
    if (this.#over) this.#response.off("close", this.#onGone);
  }

  readonly #onGone = () => {
    if (this.#response.writableFinished) return;
    this.#giveUp(new SandboxError("ABORTED", "Cannot go on: the visitor has gone"));
  };

  #giveUp(reason: SandboxError): void {
    this.#over?.abort(reason);
  }
}

function notReady(): SandboxError {
  return new SandboxError(
    "SANDBOX_UNAVAILABLE",
    `Cannot show the preview yet: it was not ready within ${readyMs / 1000} s`,
  );
}
