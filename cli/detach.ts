import { spawn } from "node:child_process";
import { mkdir, open, rename, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Config } from "../daemon/config.ts";
import { settings } from "../daemon/config.ts";
import { SandboxError } from "../protocol/errors.ts";
import { type Daemon, findDaemon } from "./daemon.ts";

/** Some days of a busy daemon; the file before it is kept, the one before that is not. */
const logLimitBytes = 64 * 1024 * 1024;

/** How often a daemon that is starting is looked for: it takes about half a second. */
const lookEveryMs = 20;

/**
 * Starts the daemon in the background, in a session of its own, with its log in `<data-dir>/daemon.log`, and waits until it
 * answers. Throws what kept it from starting, RESOURCE_BUSY when another one has the data directory.
 */
export async function startDetached(config: Config, values: Readonly<Record<string, unknown>>): Promise<Daemon> {
  await mkdir(config.dataDir, { recursive: true, mode: 0o711 });
  const logFile = `${config.dataDir}/daemon.log`;
  await turnOver(logFile);
  await using log = await open(logFile, "a+", 0o600);
  const { size: before } = await log.stat();
  const child = spawn(
    process.execPath,
    [
      ...process.execArgv, // the launcher's
      fileURLToPath(new URL("./main.ts", import.meta.url)),
      ...["up", "--json", ...flagsOf(config, values)],
    ],
    { detached: true, stdio: ["ignore", "ignore", log.fd] },
  );
  const ended = new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  child.unref();
  for (;;) {
    const daemon = await findDaemon(config);
    if (daemon?.health.pid === child.pid) return daemon!;
    const how = await Promise.race([ended, new Promise<undefined>((resolve) => setTimeout(resolve, lookEveryMs))]);
    if (how !== undefined) throw failure(await wordsSince(before), how);
  }

  async function wordsSince(position: number): Promise<string> {
    const { size } = await log.stat();
    const { buffer } = await log.read(Buffer.alloc(size - position), 0, size - position, position);
    return buffer.toString("utf8");
  }

  function failure(words: string, how: string): Error {
    const told = words.split("\n").findLast((line) => line.startsWith('{"error":'));
    if (told) return SandboxError.from((JSON.parse(told) as { error: unknown }).error);
    const last = words.split("\n").findLast((line) => /^(atoll: )?\w*(Error|Cannot)\b/.test(line)) ?? "it said nothing";
    return new SandboxError("INTERNAL_ERROR", `Cannot start the daemon: ${how}: ${last.replace("atoll: ", "")}`, {
      suggestion: `Its log is ${logFile}`,
    });
  }
}

async function turnOver(logFile: string): Promise<void> {
  const size = await stat(logFile).then(
    (it) => it.size,
    () => 0,
  );
  if (size > logLimitBytes) await rename(logFile, `${logFile}.1`);
}

/** The flags to pass on, with what was resolved against our directory as it is. */
function flagsOf(config: Config, values: Readonly<Record<string, unknown>>): string[] {
  const resolved: Record<string, unknown> = { ...values, "data-dir": config.dataDir, "store-dir": config.storeDir };
  return Object.values(settings).flatMap(({ flag }) =>
    flag !== undefined && typeof resolved[flag] === "string" ? [`--${flag}`, resolved[flag]] : [],
  );
}
