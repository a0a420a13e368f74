import { spawnSync } from "node:child_process";
import { run } from "../../daemon/linux/run.ts";

/** Runs a peer's program with this process's own PATH: a peer may be installed anywhere. */
export function call(file: string, ...args: string[]): Promise<string> {
  return run(file, args, { env: environment() });
}

export function environment(): Record<string, string> {
  return { PATH: `${process.env["PATH"]}:/usr/local/sbin:/usr/sbin:/sbin`, HOME: "/nonexistent", LC_ALL: "C" };
}

/** The first number with a dot that the program says of itself; undefined when it is not installed. */
export function versionOf(file: string): string | undefined {
  const { error, stdout } = spawnSync(file, ["--version"], { env: environment(), encoding: "utf8" });
  return error ? undefined : (/\d+\.\d[\w.]*/.exec(stdout)?.[0] ?? "unknown");
}
