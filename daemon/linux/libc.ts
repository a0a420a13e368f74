import koffi from "koffi";
import { getSystemErrorMessage } from "node:util";

/** The C library that is in this process already, whichever one that is. */
export const libc = koffi.load(null);

/** Throws unless the call that gave `result`, the last one of this thread, succeeded. The error has `code` and `errno` as Node's own. */
export function must(result: number, what: string): void {
  if (result < 0) throw failure(what);
}

/**
 * A system call by its C signature, on a thread of the pool: one that waits for a disk must not stop the daemon. What
 * takes a program 4 ms, of which the daemon stands still for 2 (it is forked), takes a call 0.1. `what` it does comes
 * first, for the error: *Cannot <what>: ENOENT: no such file or directory*.
 */
export function systemCall<A extends unknown[]>(signature: string): (what: string, ...args: A) => Promise<void> {
  const call = libc.func(signature);
  return (what, ...args) =>
    new Promise((resolve, reject) => {
      const begin = () => {
        underWay++;
        call.async(...args, (error: Error | null, result: number) => {
          if (error) reject(error);
          else if (result < 0) reject(failure(what));
          else resolve();
          underWay--;
          waiting.shift()?.();
        });
      };
      if (underWay < mostUnderWay) begin();
      else waiting.push(begin);
    });
}

/** The pool has four threads; koffi refuses the 257th call, and a thousand sandboxes may end at once. */
const mostUnderWay = 32;
let underWay = 0;
const waiting: (() => void)[] = [];

function failure(what: string): NodeJS.ErrnoException {
  const errno = koffi.errno();
  const code = nameOfErrno(errno);
  const error = new Error(`Cannot ${what}: ${code}: ${getSystemErrorMessage(-errno)}`);
  return Object.assign(error, { code, errno: -errno });
}

/** "ENOENT" for 2. */
export function nameOfErrno(errno: number): string {
  return Object.entries(koffi.os.errno).find(([, number]) => number === errno)?.[0] ?? `errno ${errno}`;
}

/** A pipe; both ends are closed in programs that are started, unless they are handed to them. */
export function openPipe(): { readEnd: number; writeEnd: number } {
  const ends: [number, number] = [0, 0];
  must(pipe2(ends, closeOnExec), "open a pipe");
  return { readEnd: ends[0], writeEnd: ends[1] };
}

const pipe2 = libc.func("int pipe2(_Out_ int *ends, int flags)") as (ends: [number, number], flags: number) => number;
const closeOnExec = 0o2000000;
