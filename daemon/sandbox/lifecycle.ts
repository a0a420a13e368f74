import { setImmediate as othersTurn } from "node:timers/promises";
import { SandboxError } from "../../protocol/errors.ts";
import type { LifecycleEvent } from "../../protocol/lifecycle.ts";
import type { ServeTable } from "./call.ts";
import { toLifecycleEvent } from "./lifecycle-event.ts";
import type { Machines } from "./machines.ts";

/** Lines read at a time: about 10 ms of the daemon's time, and what a follower that does not read costs us. */
const pageLines = 100;

/** The lives of sandboxes, told to those who follow their classes. */
export function lifecycleVerbs(machines: Machines): ServeTable<"followLifecycle"> {
  return {
    async followLifecycle(_, { query }, { signal, lastEventId }) {
      return follow(
        machines,
        new Set(query.classes),
        lastEventId === undefined ? undefined : seqOf(lastEventId),
        signal,
      );
    },
  };
}

/** The journal is read behind `after`, without it from now on; nothing is kept for the follower but its place. */
async function* follow(
  { journal, followers, records }: Machines,
  classes: ReadonlySet<string>,
  after: number | undefined,
  signal: AbortSignal,
): AsyncGenerator<{ id: string; event: LifecycleEvent }, void, undefined> {
  using _ = followers.add(classes);
  const last = journal.lastSeq();
  // A number that is not there yet was lost with the host's power: what comes now has it.
  let seq = Math.min(after ?? last, last);
  if (after === undefined) yield { id: String(seq), event: { type: "following" } };
  while (!signal.aborted) {
    const { grown } = journal; // before the look: what comes after it is seen by the next
    const lines = journal.livesAfter(seq, pageLines);
    // all at once, however slowly it reads: a sandbox that claims a run has another key from then on
    const events = lines.map((line) => toLifecycleEvent(line, sandboxOf(line.sandboxKey), classes));
    for (const [index, event] of events.entries()) {
      seq = lines[index]!.seq;
      if (event) yield { id: String(seq), event };
    }
    if (lines.length < pageLines) await either(grown, signal);
    else await othersTurn();
  }

  /** What the key's sandbox is, or was before it was destroyed. */
  function sandboxOf(key: string): { name: string; className?: string | undefined } | undefined {
    const record = records.findByKey(key);
    if (record) return { name: record.name, className: record.config.className };
    const { name, className } = (journal.lastOf(key, "destroyed")?.data ?? {}) as { name?: string; className?: string };
    return name === undefined ? undefined : { name, className };
  }
}

function seqOf(id: string): number {
  if (/^\d{1,15}$/.test(id)) return Number(id);
  throw new SandboxError("VALIDATION_FAILED", "Cannot go on behind this Last-Event-ID: it is none of these events'");
}

function either(grown: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      signal.removeEventListener("abort", over);
      resolve();
    };
    if (signal.aborted) return over();
    signal.addEventListener("abort", over, { once: true });
    void grown.then(over);
  });
}
