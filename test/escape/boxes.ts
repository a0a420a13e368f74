import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type Connection, type ExecOptions, getSandbox, type Sandbox, type SandboxOptions } from "../../sdk/index.ts";
import { type DaemonOptions, TestDaemon } from "../support/daemon.ts";

/** A daemon of its own with two sandboxes: one that is hostile, and its neighbour, who must not notice. */
export type Boxes = {
  daemon: TestDaemon;
  connection: Connection;
  attacker: Sandbox;
  victim: Sandbox;
  /** One more, of this name. */
  box(id: string, options?: SandboxOptions): Sandbox;
  /** Ends the daemon with all it has and fails when anything is left of it. */
  close(): Promise<void>;
};

/** Small, so that what a test exhausts is soon exhausted. */
export const smallInstance = { vcpu: 0.25, memoryMiB: 256, diskMB: 128 };

export async function openBoxes(options: DaemonOptions = {}): Promise<Boxes> {
  const daemon = await TestDaemon.start(options);
  const connection = daemon.connect();
  const box = (id: string, more: SandboxOptions = {}) =>
    getSandbox(connection, id, { instance: smallInstance, keepAlive: true, ...more });
  return {
    ...{ daemon, connection, box, attacker: box("attacker"), victim: box("victim") },
    async close() {
      connection.close();
      await daemon[Symbol.asyncDispose]();
    },
  };
}

/** Runs a Python program of `inside/` as root of the sandbox; gives the JSON it prints. */
export async function attack<T>(
  box: Sandbox,
  program: string,
  args: readonly string[] = [],
  options: ExecOptions = {},
): Promise<T> {
  const result = await box.exec("python3", ["-c", await sourceOf(program), ...args], { timeout: 60_000, ...options });
  assert.equal(result.exitCode, 0, `${program} ${args.join(" ")}: ${result.stderr.slice(-2_000)}`);
  return JSON.parse(result.stdout) as T;
}

/** Starts a Python program of `inside/` that goes on by itself, and waits until it has written its first line. */
export async function plant(box: Sandbox, program: string, args: readonly string[] = []): Promise<string> {
  const path = `/tmp/${program}`;
  await box.writeFile(path, await sourceOf(program));
  const started = await box.exec(
    'out=$(mktemp) && { setsid python3 "$0" "$@" >"$out" 2>&1 </dev/null & } && until [ -s "$out" ]; do sleep 0.02; done; cat "$out"'
      .replace("$0", path)
      .replace('"$@"', args.map((arg) => `'${arg}'`).join(" ")),
    { timeout: 20_000 },
  );
  assert.equal(started.exitCode, 0, `${program}: ${started.stdout}${started.stderr}`);
  assert.doesNotMatch(started.stdout, /Traceback/, program);
  return started.stdout.trim();
}

export async function sourceOf(program: string): Promise<string> {
  return readFile(new URL(`inside/${program}`, import.meta.url), "utf8");
}

/** The processes of this daemon's sandboxes that have `argument` on their command line, by the host's numbers. */
export function hostPids(daemon: TestDaemon, argument: string): number[] {
  const group = `atoll-${tagOf(daemon)}/`;
  const isThatOne = (pid: string) => {
    try {
      const said = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return said.includes(argument) && readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(group);
    } catch {
      return false; // gone meanwhile
    }
  };
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && isThatOne(name))
    .map(Number);
}

/** The mark that every host resource of this daemon carries. */
export function tagOf(daemon: TestDaemon): string {
  return createHash("sha256").update(daemon.dataDir).digest("hex").slice(0, 6);
}

/** What a sandbox says that is well. */
export async function assertWell(box: Sandbox): Promise<void> {
  const result = await box.exec("echo well", { timeout: 20_000 });
  assert.deepEqual([result.stdout, result.exitCode], ["well\n", 0], result.stderr);
}
