import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { inNamespace } from "../linux/namespace.ts";

/** A long-lived `ip -batch -`: a command through it costs a tenth of a program's start. */
export type IpBatch = AsyncDisposable & {
  /**
   * Runs commands (lines of ip, without "ip") in order, all of them also when one fails, and rejects with ip's own words
   * then. When the program dies what it was doing is rejected, and the next call starts another.
   */
  run(lines: readonly string[]): Promise<void>;
};

/** Opens a batch whose commands run in the network namespace at `netnsPath`. */
export function openIpBatch(netnsPath: string): IpBatch {
  let current: Batch | undefined;
  return {
    run: (lines) => {
      if (!current?.alive()) current = startBatch(netnsPath);
      return current.run(lines);
    },
    [Symbol.asyncDispose]: async () => await current?.end(),
  };
}

type Batch = { alive(): boolean; run(lines: readonly string[]): Promise<void>; end(): Promise<void> };
type Waiting = { marker: string; lines: readonly string[]; resolve(): void; reject(error: Error): void };

function startBatch(netnsPath: string): Batch {
  const child: ChildProcessWithoutNullStreams = inNamespace("net", netnsPath, () =>
    spawn("ip", ["-force", "-batch", "-"], { env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" } }),
  );
  const waiting: Waiting[] = [];
  let markers = 0;
  let alive = true;
  let words: string[] = [];
  let partial = "";

  const die = (why: string) => {
    alive = false;
    for (const { lines, reject } of waiting.splice(0)) reject(new Error(`Cannot run ip ${lines[0]}: ${why}`));
  };
  child.on("error", (error) => die(error.message));
  const closed = new Promise<void>((resolve) => {
    child.on("close", () => {
      die("ip ended");
      resolve();
    });
  });
  child.stdin.on("error", () => {});
  child.stdout.resume();
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    const lines = (partial + text).split("\n");
    partial = lines.pop()!;
    for (const line of lines) takeLine(line);
  });
  const takeLine = (line: string) => {
    const first = waiting[0];
    if (line.startsWith("Command failed") || !first) return;
    if (!line.includes(`"${first.marker}"`)) return void words.push(line);
    waiting.shift();
    const why = words.join("; ");
    words = [];
    if (why === "") first.resolve();
    else first.reject(new Error(`Cannot run ip ${first.lines[0]} …: ${why}`));
  };

  return {
    alive: () => alive,
    run: (lines) =>
      new Promise((resolve, reject) => {
        // ip says nothing about success. An unknown command makes it name that one, unbuffered, when all before are done.
        const marker = `atoll-${++markers}`;
        waiting.push({ marker, lines, resolve, reject });
        child.stdin.write(`${lines.join("\n")}\n${marker}\n`);
      }),
    end: () => {
      child.stdin.end();
      return closed;
    },
  };
}
