import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { connect, type Connection } from "../../../sdk/index.ts";
import { until } from "../../support/until.ts";

/** What a daemon under test is to do about its steps; steps.ts reads it. */
export type Order = {
  /** Tells one order from the next. */
  id: string;
  /** Whether the names of the steps are written down. */
  tell: boolean;
  /** The step before which the daemon ends by SIGKILL. */
  killAt?: string;
  /** Then not at once: this much later, and the program that the step has begun is stopped (SIGSTOP) at the same moment. */
  stopAfterMs?: number;
  /** The name of this boot, as the kernel would give it after another one. */
  bootId?: string;
  /** How much of the host's memory can still be had, 0 to 1. */
  availableRatio?: number;
  /** How far the wall clock is set forward; negative: back. */
  clockMs?: number;
};

const repository = join(import.meta.dirname, "../../..");

/**
 * A real daemon of its own that can be ended by SIGKILL at any chosen step of what it does, and started again on the same
 * data directory and port. Disposing takes everything down.
 */
export class SteppedDaemon implements AsyncDisposable {
  readonly dataDir: string;
  readonly #home: string;
  readonly #env: Record<string, string>;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #orders = 0;
  url = "";
  token = "";

  private constructor(home: string, env: Record<string, string>) {
    this.#home = home;
    this.dataDir = join(home, "data");
    this.#env = env;
  }

  /** Starts one. `env`: more of its environment. */
  static async start(env: Record<string, string> = {}): Promise<SteppedDaemon> {
    const home = await mkdtemp("/var/tmp/atoll-crash-");
    await chmod(home, 0o711); // the sandboxes pass through
    const daemon = new SteppedDaemon(home, env);
    await mkdir(join(home, "data"), { mode: 0o711 });
    await mkdir(join(home, "steps"));
    await daemon.up();
    await daemon.order({ tell: false });
    return daemon;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get alive(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resolves when the daemon's process of now has ended. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  connect(): Connection {
    return connect({ url: this.url, token: this.token });
  }

  /** Starts the daemon and waits until it serves. Throws its last words when it ends before. */
  async up(order: Omit<Order, "id"> = { tell: false }): Promise<void> {
    if (!(await this.tryUp(order))) throw new Error(`The daemon ended: ${this.log().slice(-2_000)}`);
  }

  /** Starts the daemon and waits until it serves (true) or has ended, by its order or because it refuses (false). */
  async tryUp(order: Omit<Order, "id"> = { tell: false }): Promise<boolean> {
    const path = join(this.dataDir, "connection.json");
    const before = inodeOf(path);
    this.#write(order);
    this.#spawn();
    // The last thing that a start does is to replace this file.
    await until("the daemon serves or has ended", () => !this.alive || ![undefined, before].includes(inodeOf(path)));
    if (!this.alive) return false;
    ({ url: this.url, token: this.token } = JSON.parse(readFileSync(path, "utf8")) as Connected);
    return true;
  }

  /** From now on the daemon that runs follows this order. */
  async order(order: Omit<Order, "id">): Promise<void> {
    const id = this.#write(order);
    process.kill(this.pid, "SIGUSR2");
    await until("the order is read", () => readFileSync(join(this.#home, "steps/ready"), "utf8") === id);
  }

  /** The names of the steps taken during `work`. */
  async stepsOf(work: () => Promise<unknown>): Promise<string[]> {
    await this.order({ tell: true });
    await work();
    await this.order({ tell: false });
    return this.takeTold();
  }

  /** The names of the steps told since they were taken last. */
  takeTold(): string[] {
    const path = join(this.#home, "steps/taken.log");
    const names = readFileSync(path, "utf8").split("\n").filter(Boolean);
    writeFileSync(path, "");
    return names;
  }

  /** Ends the daemon's process by this signal, if it has not ended, and waits for its end. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    this.#child?.kill(signal);
    await this.#ended;
  }

  /** Puts everything to sleep and ends the daemon, as `atoll down`; with purge disks go too. */
  async down({ purge = false } = {}): Promise<void> {
    const headers = { authorization: `Bearer ${this.token}`, "content-type": "application/json" };
    await fetch(`${this.url}/v1/down`, { method: "POST", headers, body: JSON.stringify({ purge }) });
    await this.#ended;
  }

  /** Everything that the daemon, in all its lives, has logged. */
  log(): string {
    const path = join(this.#home, "daemon.log");
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  /** Ends everything, with a new life for that when there is none, and removes the directories. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.alive) await this.up();
    await this.down({ purge: true });
    await rm(this.#home, { recursive: true, force: true });
  }

  #write(order: Omit<Order, "id">): string {
    const id = String(++this.#orders);
    writeFileSync(join(this.#home, "steps/order.json"), JSON.stringify({ id, ...order } satisfies Order));
    return id;
  }

  #spawn(): void {
    const log = openSync(join(this.#home, "daemon.log"), "a");
    const child = spawn(process.execPath, ["--import", join(import.meta.dirname, "steps.ts"), "daemon/main.ts"], {
      cwd: repository,
      stdio: ["ignore", log, log],
      env: {
        ...process.env,
        ATOLL_DATA_DIR: this.dataDir,
        ATOLL_STEPS: join(this.#home, "steps"),
        // the same port again: clients that reconnect must find it
        ATOLL_LISTEN: this.url ? new URL(this.url).host : "127.0.0.1:0",
        ATOLL_LOG_LEVEL: "debug",
        // what is counted and compared is what the test made; whoever tests the pool asks for one
        ATOLL_WARM_POOL: "0",
        // the same token again, also after going down
        ATOLL_TOKEN: "a-token-of-the-crash-tests",
        NODE_COMPILE_CACHE: join(this.#home, "compiled"),
        ...this.#env,
      },
    });
    closeSync(log);
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once("exit", () => resolve()));
  }
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

type Connected = { url: string; token: string };
