import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { KeepAnswer, KeepRequest } from "./keeper-thread.ts";

/**
 * As `keepOnly`, beside the daemon: a disk may hold millions of files. A thread and no process, because a process could go on when the
 * daemon was killed, and remove what the sandbox's next run has written.
 */
export function keepOnlyAside(upper: string, paths: readonly string[]): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  waiting.push({ request: { upper, paths }, resolve, reject });
  if (threads < mostThreads) void work();
  return promise;
}

type Job = { request: KeepRequest; resolve: () => void; reject: (error: unknown) => void };
const waiting: Job[] = [];

/** A few large disks must not keep the small ones waiting; each thread takes 10 MB. */
const mostThreads = 4;
let threads = 0;

/** The names that are pending in one tree: a few hundred thousand directories in one. Beyond that the tree is told to be too large. */
const resourceLimits = { maxOldGenerationSizeMb: 512 };

/** One thread: its start costs more than a usual disk, so it goes on while there is work. */
async function work(): Promise<void> {
  threads++;
  let thread: Worker | undefined;
  for (let job = waiting.shift(); job; job = waiting.shift()) {
    try {
      thread ??= new Worker(new URL("keeper-thread.ts", import.meta.url), { resourceLimits, execArgv: [] });
      thread.postMessage(job.request);
      const [{ error }] = (await once(thread, "message")) as [KeepAnswer];
      if (error) throw Object.assign(new Error(error.message), error);
      job.resolve();
    } catch (error) {
      job.reject(error);
      await thread?.terminate(); // it may be dead already
      thread = undefined;
    }
  }
  threads--;
  await thread?.terminate();
}
