import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type Connection } from "../../sdk/index.ts";
import { assertNothingLeaked, snapshotHost } from "./leaks.ts";
import { until } from "./until.ts";

export type DaemonOptions = {
  /** Names of private services, as `--hosts` takes them: { "git.test": "127.0.0.1" }. */
  hosts?: Record<string, string>;
  /** More of the daemon's environment. */
  env?: Record<string, string>;
};

/** A real daemon of its own: data directory, names and ports. Several run side by side. */
export class TestDaemon implements AsyncDisposable {
  readonly dataDir: string;
  readonly #options: DaemonOptions;
  #child: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();
  url = "";
  token = "";

  constructor(dataDir: string, options: DaemonOptions) {
    this.dataDir = dataDir;
    this.#options = options;
  }

  static async start(options: DaemonOptions = {}): Promise<TestDaemon> {
    const daemon = new TestDaemon(await mkdtemp(join(tmpdir(), "atoll-test-")), options);
    await daemon.up();
    return daemon;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** A new connection of the SDK to this daemon. */
  connect(): Connection {
    return connect({ url: this.url, token: this.token });
  }

  /** Starts the daemon again on the same data directory and port. */
  async up(): Promise<void> {
    // A file of its own, not a pipe: a daemon must not end because the test that reads it has.
    const log = openSync(join(this.dataDir, "daemon.log"), "a");
    const hosts = Object.entries(this.#options.hosts ?? {}).map(([name, address]) => `${name}=${address}`);
    const child = spawn(process.execPath, ["--max-semi-space-size=2", "daemon/main.ts"], {
      cwd: join(import.meta.dirname, "../.."),
      stdio: ["ignore", log, log],
      env: {
        ...process.env,
        ATOLL_DATA_DIR: this.dataDir,
        // the same port again: clients that reconnect must find it
        ATOLL_LISTEN: this.url ? new URL(this.url).host : "127.0.0.1:0",
        ATOLL_HOSTS: hosts.join(","),
        ATOLL_LOG_LEVEL: "debug",
        // what is counted and compared is what the test made; whoever tests the pool asks for one
        ATOLL_WARM_POOL: "0",
        // as the command line runs it, like the flag above
        NODE_COMPILE_CACHE: join(import.meta.dirname, "../../.build/compile-cache"),
        ...this.#options.env,
      },
    });
    closeSync(log);
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once("exit", resolve));
    const connection = await until("the daemon is ready", async () => {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`It ended: ${this.log().slice(-2_000)}`);
      const { url, token } = JSON.parse(await readFile(join(this.dataDir, "connection.json"), "utf8")) as Connected;
      const response = await fetch(`${url}/v1/health`, { headers: { authorization: `Bearer ${token}` } });
      const health = (await response.json()) as { pid: number };
      return health.pid === child.pid && { url, token };
    });
    this.url = connection.url;
    this.token = connection.token;
  }

  /** Ends the daemon's process by this signal and waits for its end; sandboxes and gateway are left as they are. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child?.kill(signal);
    await this.#ended;
  }

  /** Puts everything to sleep and ends the daemon, as `atoll down`; with purge disks go too. */
  async down(purge = false): Promise<void> {
    const headers = { authorization: `Bearer ${this.token}`, "content-type": "application/json" };
    await fetch(`${this.url}/v1/down`, { method: "POST", headers, body: JSON.stringify({ purge }) });
    await this.#ended;
  }

  /** Everything that this daemon, in all its lives, has logged. */
  log(): string {
    return readFileSync(join(this.dataDir, "daemon.log"), "utf8");
  }

  /** Ends the daemon with all it has, started once more for that when it is not running, and fails if anything of it is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child?.exitCode !== null || this.#child.signalCode !== null) await this.up();
    await this.down(true);
    await assertNothingLeaked({ ...(await snapshotHost(this.dataDir)), things: new Map() });
    await rm(this.dataDir, { recursive: true, force: true });
  }
}

type Connected = { url: string; token: string };
