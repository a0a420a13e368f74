import { styleText } from "node:util";
import { type ErrorCode, SandboxError } from "../protocol/errors.ts";
import { UsageError } from "./args.ts";
import { isSystemError } from "./exit-code.ts";

/** An error on stderr: what could not be done and why, then the remedy. Of a bug, where it is. */
export function tell(error: unknown, json: boolean): void {
  if (json) return void process.stderr.write(`${JSON.stringify({ error: forPrograms(error) })}\n`);
  const remedy = SandboxError.is(error) && error.suggestion ? `       ${error.suggestion}\n` : "";
  process.stderr.write(`${styleText("red", "atoll:", { stream: process.stderr })} ${wordsOf(error)}\n${remedy}`);
}

function forPrograms(error: unknown): SandboxError {
  if (SandboxError.is(error)) return error;
  if (error instanceof UsageError) return new SandboxError("VALIDATION_FAILED", error.message);
  const ofSystem = isSystemError(error) ? codes[error.code ?? ""] : undefined;
  if (ofSystem || !(error instanceof Error)) return new SandboxError(ofSystem ?? "INTERNAL_ERROR", wordsOf(error));
  return new SandboxError("INTERNAL_ERROR", `Cannot go on: ${error.message}`, { details: { stack: error.stack } });
}

/** What this machine says of a file of its own, in the words for files of sandboxes. */
const codes: Record<string, ErrorCode> = {
  ENOENT: "FILE_NOT_FOUND",
  EEXIST: "FILE_EXISTS",
  EACCES: "PERMISSION_DENIED",
  EPERM: "PERMISSION_DENIED",
  EROFS: "READ_ONLY",
  EISDIR: "IS_DIRECTORY",
  ENOTDIR: "NOT_DIRECTORY",
  ENOTEMPTY: "NOT_EMPTY",
  ENAMETOOLONG: "NAME_TOO_LONG",
  ENOSPC: "NO_SPACE",
};

function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (isSystemError(error))
    return `Cannot ${error.syscall} "${error.path}": ${error.message.replace(/^\w+: |, .*$/g, "")}`;
  return SandboxError.is(error) || error instanceof UsageError ? error.message : (error.stack ?? error.message);
}
