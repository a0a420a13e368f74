import { SandboxError } from "../protocol/errors.ts";
import { terminalSocketPath } from "../protocol/terminal.ts";
import { segmentOf } from "../protocol/verbs.ts";
import { textToBytes } from "./bytes.ts";
import { nullForUndefined } from "./config.ts";
import type { Variables } from "./exec-options.ts";
import { callIn, randomId, type Scope } from "./scope.ts";
import { asksForWebSocket, senderFor } from "./send.ts";
import { openTerminalSocket, type Seen } from "./terminal-socket.ts";

/** How a terminal begins. */
export type TerminalOptions = {
  /** 1 to 56 letters, digits, dots, underscores and hyphens; of a terminal that runs: that one. Default: a random one. */
  id?: string | undefined;
  /** What runs in it: a text for `sh`, or a program with its arguments. Default: bash, or sh in an image without it. */
  command?: string | readonly string[] | undefined;
  /** Default 80. */
  cols?: number | undefined;
  /** Default 24. */
  rows?: number | undefined;
  /** Default: the session's directory. */
  cwd?: string | undefined;
  env?: Variables | undefined;
  /** Name or number. Default root. */
  user?: string | undefined;
};

export type TerminalViewOptions = {
  cols?: number | undefined;
  rows?: number | undefined;
  /** What is run when the terminal is not there, or has ended. Default: bash, or sh in an image without it. */
  shell?: string | undefined;
  /** The session in whose directory it starts, and whose terminal it is. Default: the one this is called on. */
  sessionId?: string | undefined;
};

/** `offset` of the first byte in all of the terminal's output; where it jumps, what was between is gone. */
export type TerminalOutput = { offset: number; data: Uint8Array };

/** A terminal, as one program sees it. */
export type Terminal = {
  readonly id: string;
  readonly pid: number;
  /** What was typed; text as UTF-8. Kept while the connection is made anew, up to 1 MiB. */
  write(data: string | Uint8Array): void;
  resize(cols: number, rows: number): void;
  /**
   * What it prints, from the last 256 KiB before this call on, for one reader. Who does not read loses the oldest beyond
   * 4 MiB. It ends when the program has, or after `detach`, and throws when the daemon is not there for a minute.
   */
  readonly output: AsyncIterable<TerminalOutput>;
  /** How its program ended. Rejects with ABORTED after `detach`. */
  readonly exited: Promise<{ code: number; signal?: string }>;
  /** Looks away; the terminal goes on. */
  detach(): void;
  /** Hangs up: what runs in it ends. */
  close(): Promise<void>;
};

/** As long as other calls wait for a daemon. */
const giveUpMs = 60_000;

/** Contract: SessionMethods.createTerminal. */
export async function createTerminal(scope: Scope, options: TerminalOptions): Promise<Terminal> {
  const { command, cols, rows, cwd, env, user } = options;
  const id = options.id ?? `t-${randomId().slice(0, 12)}`;
  const argv = typeof command === "string" ? ["/bin/sh", "-c", command] : command && [...command];
  const body = {
    id,
    session: scope.directory,
    ...(argv && { argv }),
    ...(cols !== undefined && { cols }),
    ...(rows !== undefined && { rows }),
    ...(cwd !== undefined && { cwd }),
    ...(env && { env: nullForUndefined(env) }),
    ...(user !== undefined && { user }),
  };
  const { pid } = await callIn(scope, "createTerminal", { body });
  const queue = outputQueue();
  const exited = settledLater<{ code: number; signal?: string }>();
  exited.promise.catch(() => {}); // who does not ask needs no answer
  const socket = openTerminalSocket({
    reconnect: true,
    giveUpMs,
    url: (seen) => urlOf(scope, id, { start: "false", offsets: "true", ...placeOf(seen) }),
    onState(state, error) {
      if (state !== "disconnected") return;
      exited.reject(error ?? new SandboxError("ABORTED", `Cannot tell how terminal "${id}" ended: nobody looks at it`));
      queue.end(error);
    },
    onReset() {},
    onOutput: (data, offset = 0) => queue.add({ offset, data }),
    onExit: exited.resolve,
  });
  return {
    id,
    pid,
    write: (data) => socket.send(typeof data === "string" ? textToBytes(data) : new Uint8Array(data)),
    resize: (columns, lines) => socket.resize(columns, lines),
    output: queue.output,
    exited: exited.promise,
    detach: () => socket.close(),
    async close() {
      const params = { sandbox: scope.sandbox, terminal: id };
      await scope.transport.json("closeTerminal", { params }).catch((error: unknown) => {
        if (!SandboxError.is(error, "PROCESS_NOT_FOUND")) throw error; // it had ended
      });
    },
  };
}

/** Promise.withResolvers, which Node 20 does not have. */
function settledLater<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((done, fail) => ([resolve, reject] = [done, fail]));
  return { promise, resolve, reject };
}

function placeOf(seen: Seen | undefined): Record<string, string> {
  return seen ? { life: seen.life, after: String(seen.offset) } : {};
}

/** Contract: SessionMethods.createTerminalUrl. */
export async function createTerminalUrl(
  scope: Scope,
  { origin, sessionId, ...view }: TerminalViewOptions & { origin?: string | undefined },
): Promise<string> {
  const session = sessionId ?? scope.directory;
  return urlOf(scope, session, { ...queryOf(view), session, offsets: "true" }, origin);
}

/** Contract: SessionMethods.terminal. */
export async function terminal(
  scope: Scope,
  request: Request,
  { sessionId, ...view }: TerminalViewOptions,
): Promise<Response> {
  if (!asksForWebSocket(request)) {
    return new Response("A terminal is a WebSocket, and the request does not ask for one\n", {
      status: 426,
      headers: { upgrade: "websocket", connection: "upgrade" },
    });
  }
  const send = senderFor(request, {
    message: "Cannot answer with a WebSocket: a Response of this runtime cannot be one",
    suggestion: "Run the app with atoll run, or give the browser a URL of createTerminalUrl, which leads to the daemon",
  });
  await scope.ready();
  const session = sessionId ?? scope.directory;
  const asked = Object.fromEntries(
    [...new URL(request.url).searchParams].filter(([name]) => ["life", "after", "offsets"].includes(name)),
  );
  const query = new URLSearchParams({ ...queryOf(view), session, ...asked });
  const headers = new Headers([...request.headers].filter(([name]) => name.startsWith("sec-websocket-")));
  headers.set("upgrade", "websocket");
  const path = `${pathOf(scope.sandbox, session)}?${query}`;
  return scope.transport.forward(path, { headers, signal: request.signal }, send);
}

function queryOf({ cols, rows, shell }: TerminalViewOptions): Record<string, string> {
  return {
    ...(cols !== undefined && { cols: String(cols) }),
    ...(rows !== undefined && { rows: String(rows) }),
    ...(shell !== undefined && { shell }),
  };
}

async function urlOf(scope: Scope, id: string, query: Record<string, string>, origin?: string): Promise<string> {
  const body = { terminal: id, ...(origin !== undefined && { origin }) };
  const { ticket } = await callIn(scope, "createTicket", { body });
  const { url } = await scope.transport.endpoint();
  const search = new URLSearchParams({ ...query, ticket });
  return `${url.replace(/^http/, "ws")}${pathOf(scope.sandbox, id)}?${search}`;
}

function pathOf(sandbox: string, id: string): string {
  return terminalSocketPath
    .replace(":sandbox", segmentOf("sandbox", sandbox))
    .replace(":terminal", segmentOf("terminal", id));
}

/** A reader that is away for longer loses the oldest. */
const queueLimitBytes = 4 * 1024 * 1024;

function outputQueue() {
  const queued: TerminalOutput[] = [];
  let bytes = 0;
  let ended: { error: Error | undefined } | undefined;
  let wake = () => {};
  async function* read(): AsyncGenerator<TerminalOutput, void, undefined> {
    for (;;) {
      const next = queued.shift();
      if (next) {
        bytes -= next.data.length;
        yield next;
      } else if (ended) {
        if (ended.error) throw ended.error;
        return;
      } else await new Promise<void>((resolve) => (wake = resolve));
    }
  }
  return {
    output: { [Symbol.asyncIterator]: read } as AsyncIterable<TerminalOutput>,
    add(output: TerminalOutput): void {
      queued.push(output);
      bytes += output.data.length;
      while (bytes > queueLimitBytes) bytes -= queued.shift()?.data.length ?? 0;
      wake();
    },
    end(error: Error | undefined): void {
      ended = { error };
      wake();
    },
  };
}
