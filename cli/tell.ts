import { styleText } from "node:util";
import { SandboxError } from "../protocol/errors.ts";
import { UsageError } from "./args.ts";
import { isSystemError } from "./exit-code.ts";

/** An error on stderr: what could not be done and why, then the remedy. Of a bug, where it is. */
export function tell(error: unknown, json: boolean): void {
  const forPrograms = error instanceof UsageError ? new SandboxError("VALIDATION_FAILED", error.message) : error;
  if (json && SandboxError.is(forPrograms)) {
    process.stderr.write(`${JSON.stringify({ error: forPrograms })}\n`);
    return;
  }
  const remedy = SandboxError.is(error) && error.suggestion ? `       ${error.suggestion}\n` : "";
  process.stderr.write(`${styleText("red", "atoll:", { stream: process.stderr })} ${wordsOf(error)}\n${remedy}`);
}

function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (isSystemError(error))
    return `Cannot ${error.syscall} "${error.path}": ${error.message.replace(/^\w+: |, .*$/g, "")}`;
  return SandboxError.is(error) || error instanceof UsageError ? error.message : (error.stack ?? error.message);
}
