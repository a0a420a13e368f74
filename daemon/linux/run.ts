import { closeSync } from "node:fs";
import { Socket } from "node:net";
import { openPipe } from "./libc.ts";
import { type Ending, spawnProgram } from "./spawn.ts";

/** A host program that did not do what was asked; the message carries the program's own words. */
export class HostProgramError extends Error {
  readonly file: string;
  readonly args: readonly string[];
  /** Null when a signal ended the program, or it could not be started. */
  readonly exitCode: number | null;
  readonly stderr: string;

  constructor(file: string, args: readonly string[], exitCode: number | null, why: string, stderr: string) {
    super(`Cannot run ${[file, ...args].join(" ")}: ${why}`);
    this.name = "HostProgramError";
    this.file = file;
    this.args = args;
    this.exitCode = exitCode;
    this.stderr = stderr;
  }
}

export type RunOptions = {
  /** Text for standard input; without it the program reads an empty input. */
  stdin?: string;
  cwd?: string;
  /** The whole environment; default: the daemon's PATH and the C locale, so that messages can be parsed. */
  env?: Record<string, string>;
  /** Ends the program with SIGKILL. */
  signal?: AbortSignal;
};

/** Most that is kept of a program's output: host programs that we run say little, and a runaway one must not fill memory. */
const outputLimitBytes = 16 * 1024 * 1024;

/**
 * Runs a host program by argument vector and gives its standard output. There is no shell.
 * Throws HostProgramError when it cannot be started, exits non-zero or is ended by a signal.
 */
export async function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { stdin, cwd, signal, env = { PATH: hostPath, LC_ALL: "C" } } = options;
  const [input, output, words] = [openPipe(), openPipe(), openPipe()];
  const toStdin = new Socket({ fd: input.writeEnd, readable: false, writable: true });
  const stdout = new Socket({ fd: output.readEnd, readable: true, writable: false });
  const stderr = new Socket({ fd: words.readEnd, readable: true, writable: false });
  let ended: Promise<Ending>;
  try {
    const stdio = [input.readEnd, output.writeEnd, words.writeEnd];
    ended = spawnProgram(file, args, { stdio, env, ...(cwd !== undefined && { cwd }), ...(signal && { signal }) });
  } catch (error) {
    for (const end of [toStdin, stdout, stderr]) end.destroy();
    signal?.throwIfAborted();
    throw new HostProgramError(file, args, null, (error as Error).message, "");
  } finally {
    for (const fd of [input.readEnd, output.writeEnd, words.writeEnd]) closeSync(fd);
  }
  // A program that ends without reading its input is judged by its exit code, not by our broken pipe.
  toStdin.on("error", () => {}).end(stdin ?? "");
  const [ending, said, complaint] = await Promise.all([ended, textOf(stdout, signal), textOf(stderr, signal)]);
  if (ending.exitCode === 0) return said;
  signal?.throwIfAborted();
  const how = ending.exitCode === null ? `ended by ${ending.signal}` : `exit ${ending.exitCode}`;
  const why = complaint.trim();
  throw new HostProgramError(file, args, ending.exitCode, why ? `${how}: ${why}` : how, why);
}

/** Where the daemon looks for host programs. */
export const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** What it left behind may hold its output open for ever: the signal ends our reading too. */
async function textOf(stream: Socket, signal: AbortSignal | undefined): Promise<string> {
  const stop = () => stream.destroy();
  signal?.addEventListener("abort", stop, { once: true });
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      if (size < outputLimitBytes) chunks.push(chunk);
      size += chunk.length;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
  return Buffer.concat(chunks).toString("utf8");
}
