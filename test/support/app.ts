import { type ChildProcess, spawn } from "node:child_process";
import { join, resolve } from "node:path";
import { WebSocket } from "ws";
import { until } from "./until.ts";

const house = resolve(import.meta.dirname, "../..");

/** A daemon by its address. */
export type Place = { url: string; token: string };

export type AppOptions = {
  /** More options of `atoll run`. */
  options?: string[];
  env?: Record<string, string>;
  /** Do not wait until it serves. */
  isPlain?: boolean;
};

/** A program under `atoll run`, at a daemon that is named by its address, as if it were on another machine. */
export class App implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  stdout = "";
  stderr = "";
  url = "";

  constructor(daemon: Place, program: string, { options = [], env = {} }: AppOptions) {
    const words = [join(house, "cli/main.ts"), "run", "--port", "0", "--json", ...options, program];
    this.#child = spawn(process.execPath, words, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ATOLL_URL: daemon.url, ATOLL_TOKEN: daemon.token, ...env },
    });
    this.#child.stdout?.on("data", (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.#child.stderr?.on("data", (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#ended = new Promise((done) => this.#child.on("close", (code, signal) => done({ code, signal })));
  }

  static async start(daemon: Place, program: string, options: AppOptions = {}): Promise<App> {
    const app = new App(daemon, program, options);
    if (!options.isPlain) await app.serves();
    return app;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Waits until it tells its URL. */
  async serves(): Promise<void> {
    await until("the app serves", () => {
      if (this.#child.exitCode !== null || this.stderr.includes("ended with exit code"))
        throw new Error(`It ended: ${this.stderr}`);
      return this.stdout.includes("\n");
    });
    ({ url: this.url } = JSON.parse(this.stdout) as { url: string });
  }

  fetch(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`${this.url}${path}`, init);
  }

  async text(path: string, init?: RequestInit): Promise<string> {
    return (await this.fetch(path, init)).text();
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** As a pipe's other end that has ended. */
  hearNoMore(): void {
    this.#child.stdout?.destroy();
    this.#child.stderr?.destroy();
  }

  ended() {
    return this.#ended;
  }

  /** Bytes that its process has in memory, at most so far. */
  async peakBytes(): Promise<number> {
    const { readFile } = await import("node:fs/promises");
    const status = await readFile(`/proc/${this.pid}/status`, "utf8");
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }
}

/** A WebSocket that keeps what arrives. */
export class Client implements Disposable {
  readonly socket: WebSocket;
  readonly messages: (string | number[])[] = [];
  closed: { code: number; reason: string } | undefined;
  /** The status with which it was refused. */
  refused: number | undefined;
  headers: Record<string, unknown> = {};

  constructor(url: string, protocols: string[] = [], headers: Record<string, string> = {}) {
    this.socket = new WebSocket(url.replace(/^http/, "ws"), protocols, { headers });
    this.socket.on("upgrade", (response) => (this.headers = response.headers));
    this.socket.on("message", (data: Buffer, isBinary) => this.messages.push(isBinary ? [...data] : data.toString()));
    this.socket.on("close", (code, reason) => (this.closed = { code, reason: reason.toString() }));
    this.socket.on("unexpected-response", (request, response) => {
      this.refused = response.statusCode;
      request.destroy();
    });
    this.socket.on("error", () => {}); // "close" follows
  }

  async opened(): Promise<this> {
    await until("the WebSocket is open", () => {
      if (this.closed || this.refused !== undefined) throw new Error(`refused: ${this.refused}`);
      return this.socket.readyState === WebSocket.OPEN;
    });
    return this;
  }

  [Symbol.dispose](): void {
    this.socket.terminate();
  }
}
