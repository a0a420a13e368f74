import { type ErrorBody, SandboxError } from "../../protocol/errors.ts";
import type { LifecycleEvent } from "../../protocol/lifecycle.ts";
import type { EndReason } from "../../protocol/sandbox.ts";
import type { LifeLine } from "./journal.ts";

/**
 * What followers of these classes are told of a line of the journal; undefined where it is nothing to them. `sandbox`: whose
 * line it is, undefined when nobody knows any more.
 */
export function toLifecycleEvent(
  { type, data, run, time }: LifeLine,
  sandbox: { name: string; className?: string | undefined } | undefined,
  classes: ReadonlySet<string>,
): LifecycleEvent | undefined {
  const { name, className } = sandbox ?? {};
  if (name === undefined || className === undefined || !classes.has(className)) return undefined;
  const about = { sandbox: name, className, run, time };
  const { reason, error } = data as { reason: EndReason; error?: ErrorBody };
  switch (type) {
    case "run.start":
      return { type: "start", ...about };
    case "run.idle":
      return { type: "activityExpired", ...about };
    case "start.failed":
      return error && { type: "startFailed", ...about, error };
    case "run.end": {
      // without an error: another run was tried at once, or its failure has a line of its own
      if (reason === "start-failed") return error && { type: "startFailed", ...about, error };
      const unasked = unaskedEnd(name, run, reason);
      return { type: "stop", ...about, exitCode: unasked ? 137 : 0, reason, ...(unasked && { error: unasked }) };
    }
  }
}

const unaskedEnds: Partial<Record<EndReason, { why: string; suggestion: string }>> = {
  memory: { why: "it ran out of memory", suggestion: "Give it a larger instance; its disk is kept" },
  "agent-lost": { why: "its agent ended unexpectedly", suggestion: "Use it again: its disk is kept" },
  "host-restart": { why: "the machine was restarted", suggestion: "Use it again: its disk is kept" },
};

/** The error of an end that nobody has asked for: neither a caller, nor its options, nor the daemon for lack of space. */
function unaskedEnd(name: string, run: number, reason: EndReason): ErrorBody | undefined {
  const end = unaskedEnds[reason];
  if (!end) return undefined;
  return new SandboxError("SANDBOX_UNAVAILABLE", `Cannot go on in sandbox "${name}": ${end.why}`, {
    suggestion: end.suggestion,
    details: { reason, run },
  }).toJSON();
}
