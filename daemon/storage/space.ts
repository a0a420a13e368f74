import { statfs } from "node:fs/promises";

export type FreeSpace = {
  /** What unprivileged writers can still use. */
  freeBytes: number;
  /** Of what they could use in an empty file system: 0 to 1, as `df` counts it. */
  freeRatio: number;
};

/** What is free in the file systems of these paths; the scarcest of them decides both numbers. */
export async function freeSpace(paths: readonly string[]): Promise<FreeSpace> {
  const each = await Promise.all(paths.map(freeIn));
  return {
    freeBytes: Math.min(...each.map((space) => space.freeBytes)),
    freeRatio: Math.min(...each.map((space) => space.freeRatio)),
  };
}

async function freeIn(path: string): Promise<FreeSpace> {
  const { bsize, blocks, bfree, bavail } = await statfs(path);
  const usable = blocks - bfree + bavail; // without what the file system reserves for root
  return { freeBytes: bavail * bsize, freeRatio: usable > 0 ? bavail / usable : 0 };
}

/** "enough"; "no-start": no new sandbox; "sleep": running ones go to sleep, idlest first. */
export type SpaceVerdict = "enough" | "no-start" | "sleep";

/** A new sandbox will write; under a tenth the running ones need what is left. */
const startRatio = 0.1;
/** A loop pool on a full host loses writes it has promised: stop the writers well before. */
const sleepRatio = 0.05;

/** What the daemon does about this much free space. */
export function judgeSpace(space: FreeSpace): SpaceVerdict {
  if (space.freeRatio < sleepRatio) return "sleep";
  if (space.freeRatio < startRatio) return "no-start";
  return "enough";
}

/** Why a start is refused, for the message of the error. */
export function describeShortage(space: FreeSpace, path: string): { message: string; suggestion: string } {
  return {
    message: `Cannot start a sandbox: only ${Math.floor(space.freeRatio * 100)} % (${Math.floor(space.freeBytes / 1e6)} MB) is free where "${path}" lies, and a new one needs ${startRatio * 100} %`,
    suggestion: "Destroy sandboxes that are not needed (atoll ls, atoll rm <id>), or free space on the host",
  };
}

/**
 * Looks at the free space now and then every `everyMs` (default 10 s: at 100 MB/s that is 1 GB between two looks, less than
 * the 5 % of any host that has 20 GB) until the signal ends it.
 */
export async function* watchSpace(
  paths: readonly string[],
  { signal, everyMs = 10_000 }: { signal: AbortSignal; everyMs?: number },
): AsyncGenerator<FreeSpace & { verdict: SpaceVerdict }> {
  while (!signal.aborted) {
    const space = await freeSpace(paths);
    yield { ...space, verdict: judgeSpace(space) };
    await pause(everyMs, signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
