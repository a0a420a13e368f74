import { spawn } from "node:child_process";

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
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: [options.stdin === undefined ? "ignore" : "pipe", "pipe", "pipe"],
      env: options.env ?? { PATH: hostPath, LC_ALL: "C" },
      ...(options.cwd !== undefined && { cwd: options.cwd }),
      ...(options.signal && { signal: options.signal, killSignal: "SIGKILL" as const }),
    });
    const stdout = collect(child.stdout!);
    const stderr = collect(child.stderr!);
    child.on("error", (error) => {
      reject(
        options.signal?.aborted ? options.signal.reason : new HostProgramError(file, args, null, error.message, ""),
      );
    });
    child.on("close", (exitCode, signal) => {
      if (exitCode === 0) return resolve(stdout());
      const why = exitCode === null ? `ended by ${signal}` : `exit ${exitCode}`;
      const words = stderr().trim();
      reject(new HostProgramError(file, args, exitCode, words ? `${why}: ${words}` : why, words));
    });
    // A program that ends without reading its input is judged by its exit code, not by our broken pipe.
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.stdin);
  });
}

const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on("data", (chunk: Buffer) => {
    if (size < outputLimitBytes) chunks.push(chunk);
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString("utf8");
}
