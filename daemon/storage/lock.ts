import { spawn } from "node:child_process";
import { open, type FileHandle } from "node:fs/promises";

/** A held lock. It is given up by disposing it, or by the end of every process that has the descriptor. */
export type FileLock = AsyncDisposable & {
  /** Hand it to a child as one of its `stdio`, and the lock outlives us until that child has ended too. */
  readonly fd: number;
};

export type LockOptions = {
  /** Ends the waiting. */
  signal?: AbortSignal;
  /** Called once when somebody else holds the lock, before the waiting begins. */
  onWait?: () => void;
};

/** Takes the exclusive lock of a file, which is made when missing, and waits while another process has it. */
export async function lockFile(path: string, options: LockOptions = {}): Promise<FileLock> {
  const lock = await tryLockFile(path);
  if (lock) return lock;
  options.onWait?.();
  const file = await open(path, "a", 0o600);
  try {
    await flock(file, [], options.signal);
    return holding(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The same, but gives undefined at once when another process has it. */
export async function tryLockFile(path: string): Promise<FileLock | undefined> {
  const file = await open(path, "a", 0o600);
  try {
    if (await flock(file, ["--nonblock"])) return holding(file);
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  return undefined;
}

function holding(file: FileHandle): FileLock {
  return { fd: file.fd, [Symbol.asyncDispose]: () => file.close() };
}

/**
 * Node has no flock(2). The lock belongs to the open file description, not to who asked: flock(1) takes it on the descriptor
 * that it gets from us and ends, we keep it. (Not through run(), which passes no descriptors.)
 */
function flock(file: FileHandle, args: readonly string[], signal?: AbortSignal): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn("flock", ["--exclusive", ...args, "3"], {
      stdio: ["ignore", "ignore", "ignore", file.fd],
      ...(signal && { signal, killSignal: "SIGKILL" as const }),
    });
    child.on("error", (error) => reject(signal?.aborted ? signal.reason : error));
    child.on("close", (exitCode) => {
      if (exitCode === 0) return resolve(true);
      if (exitCode === 1 && args.includes("--nonblock")) return resolve(false);
      reject(new Error(`Cannot lock file descriptor ${file.fd}: flock ended with ${exitCode}`));
    });
  });
}
