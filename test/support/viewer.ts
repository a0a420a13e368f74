import { once } from "node:events";
import { WebSocket } from "ws";
import { type TerminalMessage, terminalSocketPath } from "../../protocol/terminal.ts";
import type { TestDaemon } from "./daemon.ts";
import { until } from "./until.ts";

export type Place = { sandbox: string; terminal: string; query?: Record<string, string | number> };

/** Who looks at a terminal by the wire alone, and keeps what arrives. */
export class Viewer implements Disposable {
  readonly socket: WebSocket;
  /** What arrived, in its order: `bytes` once for a row of binary messages, else the text's type. */
  readonly order: string[] = [];
  readonly messages: TerminalMessage[] = [];
  readonly #chunks: Buffer[] = [];
  bytes = 0;
  closed: number | undefined;

  constructor(url: string, options: { headers?: Record<string, string>; origin?: string } = {}) {
    this.socket = new WebSocket(url, { perMessageDeflate: false, ...options });
    this.socket.on("message", (data: Buffer, isBinary) => {
      const message = isBinary ? undefined : (JSON.parse(data.toString()) as TerminalMessage);
      const what = message?.type ?? "bytes";
      if (what !== "bytes" || this.order.at(-1) !== "bytes") this.order.push(what);
      if (message) this.messages.push(message);
      else this.#chunks.push(data);
      if (isBinary) this.bytes += data.length;
    });
    this.socket.on("close", (code) => (this.closed = code));
    this.socket.on("error", () => {}); // "close" follows
  }

  /** Looks at this terminal with the daemon's token; resolves when it is ready. */
  static async open(daemon: TestDaemon, place: Place): Promise<Viewer> {
    const viewer = new Viewer(urlOf(daemon, place), { headers: { authorization: `Bearer ${daemon.token}` } });
    await until("the terminal is ready", () => {
      if (viewer.closed !== undefined) throw new Error(`closed: ${JSON.stringify(viewer.messages)}`);
      return viewer.order.includes("ready");
    });
    return viewer;
  }

  get content(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.content.toString();
  }

  find<T extends TerminalMessage["type"]>(type: T): (TerminalMessage & { type: T }) | undefined {
    return this.messages.find((message): message is TerminalMessage & { type: T } => message.type === type);
  }

  type(text: string | Buffer): void {
    this.socket.send(Buffer.from(text), { binary: true });
  }

  tell(message: unknown): void {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  /** Waits until this is on the screen, or something of this shape. */
  sees(what: string | RegExp, limitMs?: number): Promise<true> {
    return until(
      `the terminal shows ${String(what)}`,
      () => (typeof what === "string" ? this.text.includes(what) : what.test(this.text)) || this.#failure(),
      limitMs,
    );
  }

  async close(): Promise<void> {
    if (this.closed !== undefined) return;
    this.socket.close();
    await once(this.socket, "close");
  }

  [Symbol.dispose](): void {
    this.socket.terminate();
  }

  /** For the words of a wait that ran out: what was seen last. */
  #failure(): false {
    if (this.closed === undefined) return false;
    throw new Error(`closed (${this.closed}) after ${JSON.stringify(this.text.slice(-500))}`);
  }
}

export function urlOf(daemon: TestDaemon, { sandbox, terminal, query = {} }: Place): string {
  const path = terminalSocketPath.replace(":sandbox", sandbox).replace(":terminal", terminal);
  const search = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
  return `${daemon.url.replace(/^http/, "ws")}${path}?${search}`;
}
