import { SandboxError } from "../protocol/errors.ts";
import { timeoutLimitMs } from "../protocol/process.ts";

/**
 * A signal that aborts with an error after `timeoutMs`, if there is one, and the way to end it without. Throws
 * VALIDATION_FAILED for a time that is none.
 */
export function deadline(
  timeoutMs: number | undefined,
  error: (timeoutMs: number) => SandboxError,
): { signal: AbortSignal; end(): void } {
  const controller = new AbortController();
  if (timeoutMs === undefined) return { signal: controller.signal, end: () => {} };
  if (!(timeoutMs > 0 && timeoutMs <= timeoutLimitMs)) {
    throw new SandboxError("VALIDATION_FAILED", `Cannot wait ${timeoutMs} ms: a timeout is a number of milliseconds`);
  }
  const timer = setTimeout(() => controller.abort(error(timeoutMs)), timeoutMs);
  return { signal: controller.signal, end: () => clearTimeout(timer) };
}
