import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { until } from "./until.ts";

const driver = join(import.meta.dirname, "own-terminal.py");

/** A program in a terminal of its own on this machine, as a person uses it. */
export class OwnTerminal implements AsyncDisposable {
  readonly #child: ChildProcess;
  /** Everything that was shown. */
  text = "";
  #told = "";

  constructor(argv: readonly string[], { cols = 80, rows = 24, env = process.env } = {}) {
    this.#child = spawn("python3", [driver, String(cols), String(rows), ...argv], {
      env,
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => (this.text += text));
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.#told += text));
    this.#child.stdin?.on("error", () => {}); // it has ended
  }

  type(text: string): void {
    this.#ask({ type: text });
  }

  resize(cols: number, rows: number): void {
    this.#ask({ resize: [cols, rows] });
  }

  /** Closes the window. */
  hangUp(): void {
    this.#ask({ hangup: true });
  }

  sees(what: string | RegExp): Promise<boolean> {
    return until(`the screen shows ${String(what)}`, () => {
      if (typeof what === "string" ? this.text.includes(what) : what.test(this.text)) return true;
      if (this.#child.exitCode !== null) throw new Error(`It ended: ${this.#told} ${this.text.slice(-1_000)}`);
      throw new Error(this.text.slice(-1_000));
    });
  }

  /** The exit code, and whether the terminal edits and echoes lines again; after a hang-up there is none to ask. */
  async ended(): Promise<{ code: number; cooked?: boolean }> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "close");
    return JSON.parse(this.#told) as { code: number; cooked?: boolean };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL"); // the program in it is hung up
    await once(this.#child, "close");
  }

  #ask(command: object): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }
}
