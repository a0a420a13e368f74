import { z } from "zod";

/**
 * Every error code of the system: its HTTP status and whether trying the same call again may succeed.
 * One table for the wire, the SDK and the daemon; docs/errors.md is its page for users.
 */
export const errorTable = {
  VALIDATION_FAILED: { status: 400, retryable: false },
  INVALID_SANDBOX_ID: { status: 400, retryable: false },
  INVALID_COMMAND: { status: 400, retryable: false },
  INVALID_PORT: { status: 400, retryable: false },
  INVALID_GIT_URL: { status: 400, retryable: false },
  IS_DIRECTORY: { status: 400, retryable: false },
  NOT_DIRECTORY: { status: 400, retryable: false },
  NOT_EMPTY: { status: 400, retryable: false },
  NAME_TOO_LONG: { status: 400, retryable: false },
  BACKUP_EXPIRED: { status: 400, retryable: false },
  INVALID_BACKUP_CONFIG: { status: 400, retryable: false },
  UNAUTHORIZED: { status: 401, retryable: false },
  GIT_AUTH_FAILED: { status: 401, retryable: false },
  FORBIDDEN: { status: 403, retryable: false },
  PERMISSION_DENIED: { status: 403, retryable: false },
  READ_ONLY: { status: 403, retryable: false },
  SANDBOX_NOT_FOUND: { status: 404, retryable: false },
  FILE_NOT_FOUND: { status: 404, retryable: false },
  PROCESS_NOT_FOUND: { status: 404, retryable: false },
  SESSION_NOT_FOUND: { status: 404, retryable: false },
  PORT_NOT_EXPOSED: { status: 404, retryable: false },
  CONTEXT_NOT_FOUND: { status: 404, retryable: false },
  SNAPSHOT_NOT_FOUND: { status: 404, retryable: false },
  BACKUP_NOT_FOUND: { status: 404, retryable: false },
  IMAGE_NOT_FOUND: { status: 404, retryable: false },
  WATCH_NOT_FOUND: { status: 404, retryable: false },
  GIT_REPOSITORY_NOT_FOUND: { status: 404, retryable: false },
  GIT_BRANCH_NOT_FOUND: { status: 404, retryable: false },
  PROCESS_READY_TIMEOUT: { status: 408, retryable: false },
  FILE_EXISTS: { status: 409, retryable: false },
  PORT_ALREADY_EXPOSED: { status: 409, retryable: false },
  RESOURCE_BUSY: { status: 409, retryable: true },
  SESSION_ALREADY_EXISTS: { status: 409, retryable: false },
  STALE_HANDLE: { status: 409, retryable: false },
  OPERATION_INTERRUPTED: { status: 409, retryable: true },
  VERSION_MISMATCH: { status: 409, retryable: false },
  SESSION_DESTROYED: { status: 410, retryable: false },
  PAYLOAD_TOO_LARGE: { status: 413, retryable: false },
  LIMIT_REACHED: { status: 429, retryable: true },
  ABORTED: { status: 499, retryable: false },
  INTERNAL_ERROR: { status: 500, retryable: false },
  PROCESS_EXITED_BEFORE_READY: { status: 500, retryable: false },
  GIT_CLONE_FAILED: { status: 500, retryable: false },
  NOT_SUPPORTED: { status: 501, retryable: false },
  GIT_NETWORK_ERROR: { status: 502, retryable: true },
  SERVICE_NOT_RESPONDING: { status: 502, retryable: true },
  SANDBOX_UNAVAILABLE: { status: 503, retryable: true },
  AGENT_UNREACHABLE: { status: 503, retryable: true },
  CAPACITY_EXCEEDED: { status: 503, retryable: true },
  START_TIMEOUT: { status: 504, retryable: true },
  NO_SPACE: { status: 507, retryable: false },
} as const satisfies Record<string, { status: number; retryable: boolean }>;

export type ErrorCode = keyof typeof errorTable;

export const errorCodes = Object.keys(errorTable) as [ErrorCode, ...ErrorCode[]];

/** An error as it travels: the body of a refused request, and the last event of a stream that failed under way. */
export const ErrorBody = z.object({
  code: z.enum(errorCodes),
  message: z.string(),
  /** Facts for programs: the path, the limit, the request id. */
  details: z.record(z.string(), z.unknown()).optional(),
  /** What the caller can do about it, in words. */
  suggestion: z.string().optional(),
  /** The verb that failed. */
  operation: z.string().optional(),
});
export type ErrorBody = z.infer<typeof ErrorBody>;

export type SandboxErrorOptions = {
  details?: Record<string, unknown>;
  suggestion?: string | undefined;
  operation?: string | undefined;
  cause?: unknown;
};

/**
 * The one error class, the same on the wire and in every language.
 * A program that exits non-zero is a result; our failure to run it is an error.
 */
export class SandboxError extends Error {
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;
  readonly suggestion?: string;
  /** The verb that failed; filled in at the API's edge. */
  operation?: string;

  constructor(code: ErrorCode, message: string, options: SandboxErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "SandboxError";
    this.code = code;
    this.details = options.details ?? {};
    if (options.suggestion !== undefined) this.suggestion = options.suggestion;
    if (options.operation !== undefined) this.operation = options.operation;
  }

  get httpStatus(): number {
    return errorTable[this.code].status;
  }

  /** Whether the same call may succeed when it is made again later. */
  get retryable(): boolean {
    return errorTable[this.code].retryable;
  }

  toJSON(): ErrorBody {
    return {
      code: this.code,
      message: this.message,
      ...(Object.keys(this.details).length > 0 && { details: this.details }),
      ...(this.suggestion !== undefined && { suggestion: this.suggestion }),
      ...(this.operation !== undefined && { operation: this.operation }),
    };
  }

  /** The error that a body describes. Anything that is not such a body becomes INTERNAL_ERROR. */
  static from(body: unknown): SandboxError {
    const parsed = ErrorBody.safeParse(body);
    if (!parsed.success)
      return new SandboxError("INTERNAL_ERROR", "Cannot read the error that was sent: not an error body");
    const { code, message, ...rest } = parsed.data;
    return new SandboxError(code, message, {
      ...(rest.details && { details: rest.details }),
      suggestion: rest.suggestion,
      operation: rest.operation,
    });
  }

  /** Whether `error` is a SandboxError, also from another copy of this package; with `code`, only that one. */
  static is(error: unknown, code?: ErrorCode): error is SandboxError {
    if (!(error instanceof Error) || error.name !== "SandboxError" || !("code" in error)) return false;
    return code === undefined || error.code === code;
  }
}
