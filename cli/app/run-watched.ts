import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { constants } from "node:os";
import { relative } from "node:path";
import { exitCodeOf } from "../exit-code.ts";
import { tell } from "../tell.ts";
import type { EndSignal } from "./end.ts";
import { Front } from "./front.ts";
import type { AppOptions } from "./options.ts";
import { Sources } from "./sources.ts";
import type { Asked, Told } from "./watched.ts";

/** A program that is to be started again, or to end at once, may finish its requests for so long. */
const graceMs = 2_000;

/**
 * Runs a program, and again whenever a file that it has loaded changes, until a signal ends it. `words`: Node's, with the
 * program. Gives the exit code.
 */
export async function runWatched(words: string[], env: NodeJS.ProcessEnv, options: AppOptions): Promise<number> {
  using sources = new Sources();
  using front = new Front(options);
  const failed = Promise.withResolvers<{ error: unknown }>();
  const signalled = Promise.withResolvers<{ signal: EndSignal }>();
  let program = begin();
  let isSignalled = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (isSignalled) void program.stop(signal);
      else program.end(signal);
      isSignalled = true;
      signalled.resolve({ signal });
    });
  }
  for (;;) {
    const next = await Promise.race([signalled.promise, failed.promise, sources.changed()]);
    front.hold();
    if (typeof next !== "string") {
      if ("signal" in next) {
        if (!program.isStopped) program.end(next.signal); // it began after the signal had come
        return await program.ended;
      }
      await program.stop();
      tell(next.error, options.json);
      return exitCodeOf(next.error);
    }
    say(`${relative("", next)} has changed: starting again`);
    await program.stop();
    program = begin();
  }

  function begin(): Program {
    sources.begin();
    const own = new Program(words, env, (told) => {
      if (own.isStopped) return;
      if ("loaded" in told) return sources.add(told.loaded, told.state);
      front.open().then(
        () => own.isStopped || front.giveTo((connection) => own.take(connection)),
        (error: unknown) => failed.resolve({ error }),
      );
    });
    void own.ended.then((code) => {
      if (own.isStopped) return;
      say(`the program has ended with exit code ${code}: waiting for a change`);
      if (code !== 0) sources.broken();
      front.refuse();
    });
    return own;
  }
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** One life of the program. */
class Program {
  readonly ended: Promise<number>;
  readonly #child: ChildProcess;
  #isApp = false;
  /** It was asked to end. */
  isStopped = false;

  constructor(words: string[], env: NodeJS.ProcessEnv, onTold: (told: Told) => void) {
    this.#child = spawn(process.execPath, words, { env, stdio: ["inherit", "inherit", "inherit", "ipc"] });
    this.#child.on("message", (told: Told) => {
      if ("isReady" in told) this.#isApp = true;
      onTold(told);
    });
    this.ended = new Promise((resolve, reject) => {
      this.#child.on("error", reject);
      this.#child.on("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal ?? "SIGKILL"]));
    });
  }

  /** An app is told by word: the signal of a terminal reaches it too, and would count as two. */
  end(signal: EndSignal): void {
    this.isStopped = true;
    if (this.#isApp && this.#child.connected) this.#child.send({ end: signal } satisfies Asked, () => {});
    else this.#child.kill(signal);
  }

  /** Ends it, if need be by force. */
  async stop(signal: EndSignal = "SIGTERM"): Promise<void> {
    this.end(signal);
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), graceMs);
    await this.ended;
    clearTimeout(timer);
  }

  take(connection: Socket): void {
    const asked: Asked = { connection: true };
    this.#child.send(asked, connection, (error) => error && connection.destroy());
  }
}
