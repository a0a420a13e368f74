import type { Duplex } from "node:stream";
import type { TerminalSize } from "../../protocol/agent-live.ts";
import { SandboxError } from "../../protocol/errors.ts";
import { encodeFrame, type InputKind, inputKinds } from "../../protocol/frame.ts";
import type { TerminalMessage, TerminalQuery } from "../../protocol/terminal.ts";
import { upgrade } from "../link/dial.ts";
import { type LogEntry, readLog } from "../link/log.ts";
import type { Run } from "./run.ts";
import { findTerminal, lifeOf, notFound, openTerminal, pathOf, type Reached } from "./terminal.ts";

/** Somebody who looks at a terminal. */
export type Viewer = {
  /** Resolves when there is room for more; meanwhile the ring rolls on without it. */
  output(bytes: Uint8Array): Promise<void> | undefined;
  tell(message: TerminalMessage): void;
  /** From now on what the viewer types and its size go here; undefined while nothing can take them. */
  attach(terminal: Attached | undefined): void;
};

export type Attached = {
  /** False: wait for `drained` before more. */
  write(bytes: Uint8Array): boolean;
  drained(): Promise<void>;
  resize(size: TerminalSize): void;
};

/** A lost connection to a living agent is taken up again where it broke, a few times: then something is really wrong. */
const reconnects = 3;

/**
 * Shows a terminal until its program ends or the viewer goes (`signal`): what was printed before, `ready`, and what comes.
 * Each viewer has its own connection to the agent and reads at its own pace: one that does not read falls behind the ring.
 */
export async function viewTerminal(
  run: Run,
  id: string,
  query: TerminalQuery,
  viewer: Viewer,
  signal: AbortSignal,
): Promise<void> {
  const { terminal, begun } = await reach(run, id, query, signal);
  const life = lifeOf(run, terminal);
  const { windowStart } = terminal;
  // What a terminal has printed since it was begun for this viewer is no replay: a question in it waits for his screen's answer.
  const until = begun ? 0 : terminal.offset;
  const seen = query.life === life ? (query.after ?? 0) : 0;
  let offset = seen >= windowStart && seen <= terminal.offset ? seen : windowStart;
  const tellPlace = () => {
    if (query.offsets === "true") viewer.tell({ type: "replay", life, offset });
  };
  let ready = false;
  const tellReady = () => {
    if (!ready && offset >= until) viewer.tell({ type: "ready" });
    ready ||= offset >= until;
  };
  tellPlace();
  tellReady();
  for (let lost = 0; ; lost++) {
    try {
      const socket = await upgrade(run.link, `${pathOf(id)}/attach?after=${offset}`, "atoll-terminal", signal);
      // its errors are the log's; after its end nobody listens any more
      socket.on("error", () => {});
      const gone = () => void socket.destroy();
      signal.addEventListener("abort", gone, { once: true });
      try {
        const terminalInput = attached(run, socket);
        viewer.attach(terminalInput);
        const { cols, rows } = query;
        if (lost === 0 && cols !== undefined && rows !== undefined) terminalInput.resize({ cols, rows });
        for await (const entry of readLog(socket, offset)) {
          offset = entry.after;
          if (entry.type === "truncated") tellPlace();
          await show(run, viewer, entry);
          tellReady();
          if (entry.type === "ended") return;
        }
        throw new SandboxError("AGENT_UNREACHABLE", "Cannot show the terminal: its log was cut off");
      } finally {
        viewer.attach(undefined);
        signal.removeEventListener("abort", gone);
        socket.destroy();
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!SandboxError.is(error, "AGENT_UNREACHABLE")) throw error;
      // It went with its run, and must not be begun anew by whoever only looked: the sandbox would never sleep.
      if (await run.endIfDead()) return viewer.tell({ type: "exit", code: 137, signal: "SIGKILL" });
      if (lost === reconnects) throw error;
    }
  }
}

/** The terminal that runs, or the one that the viewer has seen and that has ended since, or a new one. */
async function reach(run: Run, id: string, query: TerminalQuery, signal: AbortSignal): Promise<Reached> {
  const { cols = 80, rows = 24, session, shell, life, start } = query;
  const known = await findTerminal(run, id);
  if (known && (!known.end || lifeOf(run, known) === life || start === "false")) {
    return { terminal: known, begun: false };
  }
  if (start === "false") throw notFound(id);
  return openTerminal(run, { id, cols, rows, session, ...(shell !== undefined && { argv: [shell] }) }, signal);
}

function show(run: Run, viewer: Viewer, entry: LogEntry): Promise<void> | undefined {
  if (entry.type === "output") {
    run.activity.touch();
    return viewer.output(entry.bytes);
  }
  if (entry.type === "ended") {
    const { exitCode: code, signal } = run.explain(entry.end);
    viewer.tell({ type: "exit", code, ...(signal !== undefined && { signal }) });
  }
  return undefined;
}

function attached(run: Run, socket: Duplex): Attached {
  const send = (kind: InputKind, payload: Uint8Array) => {
    run.activity.touch();
    return socket.destroyed || socket.write(encodeFrame(kind, 0, payload));
  };
  return {
    write: (bytes) => send(inputKinds.input, bytes),
    drained: () =>
      new Promise((resolve) => {
        if (socket.destroyed || !socket.writableNeedDrain) return resolve();
        socket.once("drain", resolve);
        socket.once("close", resolve);
      }),
    resize: ({ cols, rows }) => void send(inputKinds.resize, Buffer.from(JSON.stringify({ cols, rows }))),
  };
}
