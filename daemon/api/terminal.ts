import { STATUS_CODES, type IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { type RawData, type WebSocket, WebSocketServer } from "ws";
import { SandboxError } from "../../protocol/errors.ts";
import { SandboxId } from "../../protocol/names.ts";
import { TerminalId, type TerminalMessage, TerminalQuery, ViewerMessage } from "../../protocol/terminal.ts";
import type { Log } from "../log.ts";
import type { Run } from "../sandbox/run.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { notFound } from "../sandbox/terminal.ts";
import { type Attached, type Viewer, viewTerminal } from "../sandbox/terminal-view.ts";
import { hostName, requireHost, requireToken, type Tokens } from "./access.ts";
import type { Serving } from "./listen.ts";
import { parse } from "./parse.ts";
import type { Tickets } from "./ticket.ts";

export type TerminalOptions = {
  sandboxes: Sandboxes;
  tokens: Tokens;
  tickets: Tickets;
  /** Host names that the API answers to. */
  names: ReadonlySet<string>;
  log: Log;
};

/** A paste of some hundred kilobytes arrives as one message. */
const inputLimitBytes = 4 * 1024 * 1024;

/** What waits in our memory for a viewer that does not read; the rest rolls on in the sandbox's ring. */
const waitingLimitBytes = 256 * 1024;

/** A viewer whose machine fell asleep closes nothing: who answers no ping is gone. */
const pingMs = 30_000;

const socketPath = /^\/v1\/sandboxes\/([^/?]+)\/terminals\/([^/?]+)\/socket(?:\?|$)/;

/** `serving`, with the WebSockets of terminals before it. */
export function serveTerminals(serving: Serving, options: TerminalOptions): Serving {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: true,
    maxPayload: inputLimitBytes,
    perMessageDeflate: false,
  });
  setInterval(() => pingAll(server), pingMs).unref();
  // By host first: the page of a preview may have a path like ours.
  const isTerminal = ({ headers, url }: IncomingMessage) =>
    options.names.has(hostName(headers.host ?? "")) &&
    headers.upgrade?.toLowerCase() === "websocket" &&
    socketPath.test(url ?? "");
  return {
    request: serving.request,
    wantsUpgrade: (request) => isTerminal(request) || serving.wantsUpgrade(request),
    upgrade(request, socket, head) {
      if (!isTerminal(request)) return serving.upgrade(request, socket, head);
      socket.on("error", () => {}); // a viewer that is gone before it is answered
      try {
        const wanted = admit(request, options);
        server.handleUpgrade(request, socket, head, (viewer) => void serve(viewer, wanted, options));
      } catch (error) {
        refuse(socket, SandboxError.is(error) ? error : new SandboxError("INTERNAL_ERROR", String(error)));
      }
    },
  };
}

type Wanted = { sandbox: string; terminal: string; query: TerminalQuery };

/** Throws unless the request names a terminal and may open it. */
function admit(request: IncomingMessage, { names, tokens, tickets }: TerminalOptions): Wanted {
  requireHost(request.headers.host, names);
  const [, sandboxText = "", terminalText = ""] = socketPath.exec(request.url ?? "") ?? [];
  const { searchParams } = new URL(request.url ?? "", "http://terminal");
  const query = parse(TerminalQuery, Object.fromEntries(searchParams), "query");
  const sandbox = parse(SandboxId, decode(sandboxText), "path");
  const terminal = parse(TerminalId, decode(terminalText), "path");
  const { authorization, origin } = request.headers;
  if (query.ticket === undefined) requireToken(authorization, tokens);
  else tickets.take(query.ticket, { sandbox, terminal, origin });
  return { sandbox, terminal, query };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // no id has a %, so the schema refuses it
  }
}

function refuse(socket: Duplex, error: SandboxError): void {
  const body = JSON.stringify(error);
  socket.end(
    `HTTP/1.1 ${error.httpStatus} ${STATUS_CODES[error.httpStatus] ?? ""}\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}

/** Shows the terminal until it or the viewer ends. What goes wrong is told as text: browsers see no HTTP status. */
async function serve(socket: WebSocket, { sandbox, terminal, query }: Wanted, options: TerminalOptions): Promise<void> {
  const gone = new AbortController();
  socket.on("close", () => gone.abort(new SandboxError("ABORTED", "Cannot go on: the viewer has gone")));
  socket.on("error", () => {}); // "close" follows
  socket.on("pong", () => alive.add(socket));
  alive.add(socket);
  const viewer = viewerOf(socket);
  try {
    const run = await runFor(sandbox, terminal, query, options.sandboxes, gone.signal);
    await viewTerminal(run, terminal, query, viewer, gone.signal);
    end(socket, 1000);
  } catch (error) {
    if (gone.signal.aborted) return;
    const told = SandboxError.is(error) ? error : new SandboxError("INTERNAL_ERROR", "Cannot show the terminal");
    if (told !== error) options.log.error({ sandbox, terminal, error: String(error) }, "a terminal failed");
    viewer.tell({ type: "error", message: told.message, code: told.code });
    end(socket, 1011);
  }
}

/** Who only looks wakes nothing. The run is held no longer: a viewer may stay for days, and uses it only while something flows. */
async function runFor(
  sandbox: string,
  terminal: string,
  { start }: TerminalQuery,
  sandboxes: Sandboxes,
  signal: AbortSignal,
): Promise<Run> {
  const entered = start === "false" ? await sandboxes.peek(sandbox) : await sandboxes.enter(sandbox, signal);
  if (!entered) throw notFound(terminal);
  entered.hold[Symbol.dispose]();
  return entered.run;
}

/** The viewer's farewell is to be read, or the socket stays for 30 s. */
function end(socket: WebSocket, code: number): void {
  socket.resume();
  socket.close(code);
}

function viewerOf(socket: WebSocket): Viewer {
  let terminal: Attached | undefined;
  socket.pause(); // what is typed waits where it comes from until somebody takes it
  socket.on("message", (data, isBinary) => {
    alive.add(socket);
    if (!isBinary) return resize(terminal, data);
    if (!terminal || terminal.write(bytesOf(data))) return;
    socket.pause();
    void terminal.drained().then(() => terminal && socket.resume());
  });
  return {
    output(bytes) {
      let sent: (() => void) | undefined;
      socket.send(bytes, { binary: true }, () => sent?.());
      if (socket.bufferedAmount <= waitingLimitBytes) return undefined;
      return new Promise((resolve) => (sent = resolve));
    },
    tell: (message: TerminalMessage) => socket.send(JSON.stringify(message), { binary: false }),
    attach(attached) {
      terminal = attached;
      if (attached) socket.resume();
      else socket.pause();
    },
  };
}

/** What makes no sense is passed over: a viewer can harm only its own screen. */
function resize(terminal: Attached | undefined, data: RawData): void {
  try {
    const message = ViewerMessage.safeParse(JSON.parse(bytesOf(data).toString("utf8")));
    if (message.success) terminal?.resize(message.data);
  } catch {
    // no JSON
  }
}

function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}

/** Viewers that have been heard of since the last ping. */
const alive = new WeakSet<WebSocket>();

function pingAll(server: WebSocketServer): void {
  for (const socket of server.clients) {
    // one that we do not read cannot be heard: its answers lie behind what it has sent
    if (!alive.delete(socket) && !socket.isPaused) socket.terminate();
    else socket.ping();
  }
}
