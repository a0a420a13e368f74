import { open, type FileHandle } from "node:fs/promises";
import { libc, must } from "../linux/libc.ts";

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
export async function lockFile(path: string, { signal, onWait }: LockOptions = {}): Promise<FileLock> {
  for (let waited = false; ; waited = true) {
    signal?.throwIfAborted();
    const lock = await tryLockFile(path);
    if (lock) return lock;
    if (!waited) onWait?.();
    await new Promise((resolve) => setTimeout(resolve, againMs));
  }
}

/** The same, but gives undefined at once when another process has it. */
export async function tryLockFile(path: string): Promise<FileLock | undefined> {
  const file = await open(path, "a", 0o600);
  try {
    if (takeLock(file)) return { fd: file.fd, [Symbol.asyncDispose]: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  return undefined;
}

/** A call that waits in the kernel would hold a thread of the pool, and could not be ended. */
const againMs = 25;

/** Node has no flock(2). The lock belongs to the open file description, so whoever inherits the descriptor has it too. */
function takeLock({ fd }: FileHandle): boolean {
  try {
    must(flock(fd, LOCK_EX | LOCK_NB), `lock file descriptor ${fd}`);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EWOULDBLOCK" || (error as NodeJS.ErrnoException).code === "EAGAIN")
      return false;
    throw error;
  }
}

const flock = libc.func("int flock(int fd, int operation)") as (fd: number, operation: number) => number;
const LOCK_EX = 2;
const LOCK_NB = 4;
