import { SandboxError } from "../protocol/errors.ts";
import { UsageError } from "./args.ts";

/** What the command line's exit codes say: what to do about it. */
export const exitCodes = { other: 1, usage: 2, notFound: 3, refused: 4, tryAgain: 5 } as const;

/** The exit code of what a verb threw. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return exitCodes.usage;
  if (isSystemError(error)) return error.code === "ENOENT" ? exitCodes.notFound : exitCodes.refused;
  if (!SandboxError.is(error)) return exitCodes.other;
  const { code, httpStatus, retryable } = error;
  if (retryable || httpStatus === 408) return exitCodes.tryAgain;
  if (httpStatus === 404 || httpStatus === 410) return exitCodes.notFound;
  if (code === "VALIDATION_FAILED" || code.startsWith("INVALID_")) return exitCodes.usage;
  // 507 is a full disk: the daemon refuses, and so it will until somebody makes room.
  return httpStatus < 500 || httpStatus === 501 || httpStatus === 507 ? exitCodes.refused : exitCodes.other;
}

/** This machine's refusal to do something with a file, such as a name that is not there. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error && "path" in error;
}
