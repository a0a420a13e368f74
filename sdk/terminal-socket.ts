import { type ErrorCode, errorTable, SandboxError } from "../protocol/errors.ts";
import type { TerminalMessage } from "../protocol/terminal.ts";

/** What has been seen of a terminal: which one, and how many bytes of its output. */
export type Seen = { life: string; offset: number };

export type SocketState = "disconnected" | "connecting" | "connected";

export type TerminalSocketOptions = {
  /** Where to connect; asked before each attempt, because a ticket opens one connection. */
  url(seen: Seen | undefined): string | Promise<string>;
  /** Whether a lost connection is made again. */
  reconnect: boolean;
  /** After this long without a connection it fails. Default: never. */
  giveUpMs?: number;
  onState(state: SocketState, error?: Error): void;
  /** What was shown is old: the output that follows begins at another place, or is another terminal's. */
  onReset(): void;
  /** `offset` of the first byte, where the server tells places. */
  onOutput(bytes: Uint8Array, offset: number | undefined): void;
  onExit(exit: { code: number; signal?: string }): void;
};

export type TerminalSocket = {
  send(bytes: Uint8Array<ArrayBuffer>): void;
  resize(cols: number, rows: number): void;
  /** Takes no output until `resume`: the connection is closed, and goes on at the same place. */
  suspend(): void;
  resume(): void;
  close(): void;
};

/** First pause before a new attempt, doubled up to the last. */
const firstPauseMs = 100;
const lastPauseMs = 10_000;

/** What is typed while there is no connection: more than anybody types within an outage. */
const waitingLimitBytes = 1024 * 1024;

/** Looks at a terminal through as many WebSockets as it takes, without showing anything twice. */
export function openTerminalSocket(options: TerminalSocketOptions): TerminalSocket {
  const { WebSocket } = globalThis;
  if (typeof WebSocket === "undefined") {
    throw new SandboxError("NOT_SUPPORTED", "Cannot open a terminal: this runtime has no WebSocket", {
      suggestion: "Use Node 22 or later",
    });
  }
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let seen: Seen | undefined;
  let shown = false;
  let ended = false;
  let suspended = false;
  let pauseMs = firstPauseMs;
  let lostAt: number | undefined = performance.now();
  let size: { cols: number; rows: number } | undefined;
  let waiting: Uint8Array<ArrayBuffer>[] = [];
  let waitingBytes = 0;
  options.onState("connecting");
  void connect();
  return {
    send(bytes) {
      if (ended) return;
      if (socket?.readyState === WebSocket.OPEN) return socket.send(bytes);
      if (waitingBytes + bytes.length > waitingLimitBytes) return;
      waiting.push(bytes);
      waitingBytes += bytes.length;
    },
    resize(cols, rows) {
      size = { cols, rows };
      tellSize();
    },
    suspend() {
      suspended = true;
      drop();
    },
    resume() {
      if (!suspended) return;
      suspended = false;
      if (!ended) void connect(); // nothing was lost, so nobody needs to know
    },
    close() {
      end();
    },
  };

  async function connect(): Promise<void> {
    let url: string;
    try {
      url = await options.url(seen);
    } catch (error) {
      const known = SandboxError.is(error);
      return known && !error.retryable ? end(error) : lose(error instanceof Error ? error : new Error(String(error)));
    }
    if (ended || suspended || socket) return;
    const own = new WebSocket(url);
    socket = own;
    own.binaryType = "arraybuffer";
    // Without a word about places a new connection repeats what was shown.
    let placed = !shown;
    own.addEventListener("open", () => {
      if (own !== socket) return;
      tellSize();
      for (const bytes of waiting) own.send(bytes);
      waiting = [];
      waitingBytes = 0;
    });
    own.addEventListener("message", ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (own !== socket) return;
      if (typeof data === "string") return hear(JSON.parse(data) as TerminalMessage);
      place();
      const bytes = new Uint8Array(data);
      const offset = seen?.offset;
      if (seen) seen = { ...seen, offset: seen.offset + bytes.length };
      shown = true;
      options.onOutput(bytes, offset);
    });
    own.addEventListener("close", ({ code, reason }) => {
      if (own !== socket) return;
      socket = undefined;
      lose(new Error(`the connection was closed (${code}${reason && `: ${reason}`})`));
    });

    function hear(message: TerminalMessage): void {
      switch (message.type) {
        case "replay": {
          const { life, offset } = message;
          const goesOn = seen?.life === life && seen.offset === offset;
          if (!goesOn && shown) options.onReset();
          placed = true;
          seen = { life, offset };
          break;
        }
        case "ready":
          place();
          pauseMs = firstPauseMs;
          lostAt = undefined;
          options.onState("connected");
          break;
        case "exit": {
          const { code, signal } = message;
          options.onExit({ code, ...(signal !== undefined && { signal }) });
          end();
          break;
        }
        case "error": {
          const code =
            message.code !== undefined && message.code in errorTable ? (message.code as ErrorCode) : undefined;
          const error = new SandboxError(code ?? "INTERNAL_ERROR", message.message);
          if (!error.retryable) return end(error);
          drop();
          lose(error);
          break;
        }
      }
    }

    function place(): void {
      if (!placed) options.onReset();
      placed = true;
    }
  }

  function tellSize(): void {
    if (size && socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "resize", ...size }));
  }

  function lose(error: Error): void {
    if (ended || suspended) return;
    lostAt ??= performance.now();
    const givesUp = performance.now() - lostAt > (options.giveUpMs ?? Number.POSITIVE_INFINITY);
    if (!options.reconnect || givesUp) return end(error);
    options.onState("connecting", error);
    // Half of it by chance, so that a daemon that comes back is not met by all its viewers at once.
    timer = setTimeout(() => void connect(), pauseMs * (0.5 + Math.random() / 2));
    pauseMs = Math.min(pauseMs * 2, lastPauseMs);
  }

  function drop(): void {
    clearTimeout(timer);
    const own = socket;
    socket = undefined;
    own?.close();
  }

  function end(error?: Error): void {
    if (ended) return;
    ended = true;
    drop();
    options.onState("disconnected", error);
  }
}
