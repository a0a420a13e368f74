import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";

export type ProgramResult = {
  /** Null when a signal ended the program or it could not be started. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
};

export type ProgramOptions = { cwd?: string; env?: NodeJS.ProcessEnv; stdin?: string; signal?: AbortSignal };

/** Runs a program to its end, whatever that is, and tells what it wrote. For tests: there, failing is a result. */
export async function runProgram(file: string, args: string[], options: ProgramOptions = {}): Promise<ProgramResult> {
  const child = spawn(file, args, {
    stdio: ["pipe", "pipe", "pipe"],
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    ...(options.env && { env: options.env }),
    ...(options.signal && { signal: options.signal }),
  });
  const ended = new Promise<Pick<ProgramResult, "code" | "signal"> & { why?: string }>((resolve) => {
    child.on("error", (error) => resolve({ code: null, signal: null, why: error.message }));
    child.on("close", (code, signal) => resolve({ code, signal }));
  });
  // A program that ends without reading its input is judged by its exit code, not by our broken pipe.
  child.stdin.on("error", () => {});
  child.stdin.end(options.stdin);
  const [stdout, stderr, { code, signal, why }] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, signal, stdout, stderr: why ?? stderr };
}
