import { openTerminalSocket, type Seen, type SocketState, type TerminalSocket } from "./terminal-socket.ts";
import { textToBytes } from "./bytes.ts";

/** What is used of @xterm/xterm's Terminal, of versions 5 and 6. */
export type XtermTerminal = {
  readonly cols: number;
  readonly rows: number;
  write(data: Uint8Array, written?: () => void): void;
  reset(): void;
  onData(listener: (data: string) => void): { dispose(): void };
  onBinary(listener: (data: string) => void): { dispose(): void };
  onResize(listener: (size: { cols: number; rows: number }) => void): { dispose(): void };
};

/** Which terminal: that of a sandbox's session, "default" where none is named. */
export type SandboxTarget = { sandboxId: string; sessionId?: string | undefined };

export type ConnectionState = SocketState;

export type SandboxAddonOptions = {
  /**
   * The WebSocket's URL: of an app that answers with `sandbox.terminal(request)`, or one that `createTerminalUrl` made. Asked
   * before each attempt. `origin`: this page's, as a WebSocket's ("wss://app.example.com").
   */
  getWebSocketUrl(target: SandboxTarget & { origin: string }): string | Promise<string>;
  /** Whether a lost connection is made again, with growing pauses up to 10 s. Default true. */
  reconnect?: boolean | undefined;
  onStateChange?: ((state: ConnectionState, error?: Error) => void) | undefined;
};

/** Beyond this a screen that is slow to draw takes no more, and goes on where it was when it has drawn. */
const drawingLimitBytes = 2 * 1024 * 1024;

/**
 * An addon for @xterm/xterm that shows a terminal of a sandbox: `terminal.loadAddon(addon)`, then `addon.connect(…)`. After a
 * lost connection the screen goes on where it was; where that is not to be had it is drawn anew, so nothing appears twice.
 */
export class SandboxAddon {
  readonly #options: SandboxAddonOptions;
  #terminal: XtermTerminal | undefined;
  #listeners: { dispose(): void }[] = [];
  #socket: TerminalSocket | undefined;
  #target: SandboxTarget | undefined;
  #state: ConnectionState = "disconnected";
  /** What is drawn was printed before; who asked something in it has been answered by the screen of that time. */
  #replaying = false;

  constructor(options: SandboxAddonOptions) {
    this.#options = options;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get sandboxId(): string | undefined {
    return this.#target?.sandboxId;
  }

  get sessionId(): string | undefined {
    return this.#target?.sessionId;
  }

  /** Called by `terminal.loadAddon`. */
  activate(terminal: XtermTerminal): void {
    this.#terminal = terminal;
    this.#listeners = [
      terminal.onData((data) => {
        if (!this.#replaying || !isAnswer(data)) this.#socket?.send(textToBytes(data));
      }),
      // bytes, one to a character: reports of the mouse in its oldest form
      terminal.onBinary((data) => this.#socket?.send(Uint8Array.from(data, (char) => char.charCodeAt(0)))),
      terminal.onResize(({ cols, rows }) => this.#socket?.resize(cols, rows)),
    ];
  }

  /** Called with the terminal's own `dispose`. */
  dispose(): void {
    this.disconnect();
    for (const listener of this.#listeners) listener.dispose();
    this.#listeners = [];
    this.#terminal = undefined;
  }

  /** Shows this terminal, instead of the one shown before. Throws an Error before the addon is loaded. */
  connect(target: SandboxTarget): void {
    const terminal = this.#terminal;
    if (!terminal) throw new Error("Cannot connect: the addon is not loaded. Call terminal.loadAddon(addon) first");
    if (this.#target) {
      this.disconnect();
      terminal.reset();
    }
    this.#target = target;
    this.#replaying = true;
    let drawing = 0;
    let paused = false;
    const socket: TerminalSocket = openTerminalSocket({
      reconnect: this.#options.reconnect ?? true,
      url: async (seen) => {
        const url = await this.#options.getWebSocketUrl({ ...target, origin: originOf() });
        return withPlace(url, seen);
      },
      onState: (state, error) => {
        // behind what has come so far
        if (state === "connected" && this.#replaying) terminal.write(new Uint8Array(), () => (this.#replaying = false));
        this.#tell(state, error);
      },
      onReset: () => {
        this.#replaying = this.#state !== "connected";
        terminal.reset();
      },
      onOutput(bytes) {
        drawing += bytes.length;
        terminal.write(bytes, () => {
          drawing -= bytes.length;
          if (!paused || drawing > 0) return;
          paused = false;
          socket.resume();
        });
        if (drawing <= drawingLimitBytes || paused) return;
        paused = true;
        socket.suspend();
      },
      onExit() {},
    });
    this.#socket = socket;
    socket.resize(terminal.cols, terminal.rows);
  }

  /** Looks away; the terminal in the sandbox goes on. */
  disconnect(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
  }

  #tell(state: ConnectionState, error: Error | undefined): void {
    if (state === this.#state && !error) return;
    this.#state = state;
    this.#options.onStateChange?.(state, error);
  }
}

/** What a screen answers to a program that asks (what it is, where its cursor is, its colours), as against what is typed. */
function isAnswer(data: string): boolean {
  return /^\x1b(?:\[[?>]?[\d;]*\$?[cnRty]|[P\]][^]*(?:\x1b\\|\x07))$/.test(data);
}

function originOf(): string {
  const { location } = globalThis as { location?: { origin: string } };
  return location?.origin.replace(/^http/, "ws") ?? "";
}

/** What has been seen, for a server that knows places; apps that do not pass it on replay everything. */
function withPlace(url: string, seen: Seen | undefined): string {
  const placed = new URL(url, originOf() || undefined);
  placed.searchParams.set("offsets", "true");
  if (seen) {
    placed.searchParams.set("life", seen.life);
    placed.searchParams.set("after", String(seen.offset));
  }
  return placed.href;
}
