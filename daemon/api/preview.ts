import { type IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { SandboxError } from "../../protocol/errors.ts";
import type { Log } from "../log.ts";
import type { Machines } from "../sandbox/machines.ts";
import { findPreview } from "../sandbox/port.ts";
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
  readonly #visits = new Map<string, number>();
  #all = 0;

  constructor(machines: Machines, sandboxes: Sandboxes, tokens: Tokens) {
    this.#machines = machines;
    this.#sandboxes = sandboxes;
    this.#tokens = tokens;
    this.#log = machines.log;
  }

  /** Answers one request; never throws. */
  async show(request: IncomingMessage, response: ServerResponse, sight: Sight): Promise<void> {
    await this.#visit(request, response, sight, async (passage) => {
      await relay(request, response, passage);
    });
  }

  /** Answers a request for another protocol on its bare socket; never throws. */
  async upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, sight: Sight): Promise<void> {
    // at once: a stream that has ended meanwhile takes nothing back
    if (head.length > 0) socket.unshift(head);
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket as never);
    response.once("finish", () => socket.end());
    socket.on("error", () => socket.destroy());
    await this.#visit(request, response, sight, (passage) => relayUpgrade(request, socket, response, passage));
  }

  async #visit(
    request: IncomingMessage,
    response: ServerResponse,
    sight: Sight,
    pass: (passage: Passage) => Promise<void>,
  ): Promise<void> {
    using patience = new Patience();
    const leave = () => {
      if (!response.writableFinished) patience.end(new SandboxError("ABORTED", "Cannot go on: the visitor has gone"));
    };
    response.once("close", leave);
    using cleanup = new DisposableStack();
    try {
      const place = this.#find(request, sight);
      const cut = () => {
        patience.end(new SandboxError("PORT_NOT_EXPOSED", "Cannot go on: the preview was taken back"));
        request.socket.destroy();
      };
      if (place.gone) cleanup.use(whenAborted(place.gone, cut));
      cleanup.use(this.#count(place.sandbox));
      const { run, hold } =
        this.#sandboxes.enterIfAwake(place.sandbox) ?? (await this.#sandboxes.enter(place.sandbox, patience.signal()));
      cleanup.use(hold);
      const thinking = setTimeout(() => hold[Symbol.dispose](), thinkingMs).unref();
      cleanup.defer(() => clearTimeout(thinking));
      const onAnswer = () => {
        patience[Symbol.dispose]();
        hold[Symbol.dispose]();
      };
      const { path, shared } = sight;
      const visitor = place.isOurs ? { ...sight.visitor, authorization: undefined } : sight.visitor;
      const within = () => patience.signal();
      await pass({ run, port: place.port, path, visitor, within, shared, onAnswer });
    } catch (error) {
      this.#tell(request, response, error, "sandbox" in sight);
    } finally {
      response.off("close", leave);
    }
  }

  /** The sandbox and port, when the request may see them. Nothing is woken before. */
  #find(request: IncomingMessage, sight: Sight) {
    if (sight.needsToken) requireToken(request.headers.authorization, this.#tokens);
    if ("sandbox" in sight) return { sandbox: sight.sandbox, port: sight.port, isOurs: false };
    const row = findPreview(this.#machines.ports, sight.label);
    const record = row && this.#machines.records.findByKey(row.sandboxKey);
    if (!row || !record) throw new SandboxError("PORT_NOT_EXPOSED", "Cannot find a preview of this address");
    if (row.auth === "bearer") requireToken(sight.visitor.authorization, this.#tokens);
    return {
      sandbox: record.name,
      port: row.port,
      gone: row.gone.signal,
      /** The Authorization header was for us. */
      isOurs: row.auth === "bearer",
    };
  }

  #count(sandbox: string): Disposable {
    const visits = this.#visits.get(sandbox) ?? 0;
    if (visits >= visitsPerSandbox || this.#all >= visitsInAll) {
      throw new SandboxError("SANDBOX_UNAVAILABLE", `Cannot take another request: ${visits} are under way`);
    }
    this.#visits.set(sandbox, visits + 1);
    this.#all++;
    return {
      [Symbol.dispose]: () => {
        this.#all--;
        const left = (this.#visits.get(sandbox) ?? 1) - 1;
        if (left === 0) this.#visits.delete(sandbox);
        else this.#visits.set(sandbox, left);
      },
    };
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

/** How long a visitor is kept waiting, counted from when there is something to wait for. */
class Patience implements Disposable {
  // made when needed: most requests find all they want
  #over: AbortController | undefined;
  #timer: NodeJS.Timeout | undefined;
  #reason: SandboxError | undefined;

  signal(): AbortSignal {
    this.#over ??= new AbortController();
    if (this.#reason) this.#over.abort(this.#reason);
    else this.#timer ??= setTimeout(() => this.end(notReady()), readyMs);
    return this.#over.signal;
  }

  end(reason: SandboxError): void {
    this.#reason ??= reason;
    this.#over?.abort(this.#reason);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `work` when the signal aborts, unless disposed before. A listener of its own for each would cost more than the rest of a visit. */
function whenAborted(signal: AbortSignal, work: () => void): Disposable {
  let works = waiting.get(signal);
  if (!works) {
    const all = new Set<() => void>();
    signal.addEventListener("abort", () => all.forEach((one) => one()), { once: true });
    waiting.set(signal, (works = all));
  }
  works.add(work);
  return { [Symbol.dispose]: () => void works.delete(work) };
}

function notReady(): SandboxError {
  return new SandboxError(
    "SANDBOX_UNAVAILABLE",
    `Cannot show the preview yet: it was not ready within ${readyMs / 1000} s`,
  );
}
