import { z } from "zod";
import { ErrorBody } from "./errors.ts";
import { SandboxPath, ShortId } from "./names.ts";
import { Timeout } from "./process.ts";

/** A flag in a query string. */
const Flag = z.enum(["true", "false"]).transform((text) => text === "true");

/** Permission bits in octal, such as "755". */
export const FileMode = z
  .string()
  .regex(/^[0-7]{1,4}$/, 'a mode is octal, such as "755"')
  .transform((text) => Number.parseInt(text, 8));

export const FileInfo = z.object({
  name: z.string(),
  absolutePath: z.string(),
  relativePath: z.string(),
  type: z.enum(["file", "directory", "symlink", "other"]),
  size: z.number().int(),
  /** ISO 8601. */
  modifiedAt: z.string(),
  /** As ls prints it: "rwxr-xr-x". */
  mode: z.string(),
  permissions: z.object({ readable: z.boolean(), writable: z.boolean(), executable: z.boolean() }),
  /** Of a symlink: what it holds. */
  target: z.string().optional(),
});
export type FileInfo = z.infer<typeof FileInfo>;

export const FileQuery = z.strictObject({ path: SandboxPath, session: ShortId.default("default") });
export const WriteQuery = FileQuery.extend({ mode: FileMode.optional() });
export const ListFilesQuery = FileQuery.extend({ recursive: Flag.default(false), includeHidden: Flag.default(true) });

const Place = { path: SandboxPath, session: ShortId.default("default") };
export const MkdirBody = z.strictObject({
  ...Place,
  recursive: z.boolean().default(false),
  mode: z.number().int().min(0).max(0o7777).optional(),
});
export const RemoveBody = z.strictObject({ ...Place, recursive: z.boolean().default(false) });
export const MoveBody = z.strictObject({ ...Place, to: SandboxPath });

/** A listing arrives in parts, so that its length has no limit; the last event is `complete` or `error`. */
export const FileListEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("files"), files: z.array(FileInfo) }),
  z.object({ type: z.literal("complete"), count: z.number().int(), path: z.string() }),
  z.object({ type: z.literal("error"), error: ErrorBody }),
]);

export const GitCheckoutBody = z.strictObject({
  /** As in ExecRequest: the same request again attaches to the same clone. */
  processId: ShortId,
  url: z.string().min(1).max(4_096),
  branch: z.string().min(1).max(255).optional(),
  targetDir: SandboxPath.optional(),
  depth: z.number().int().positive().optional(),
  session: ShortId.default("default"),
  cloneTimeoutMs: Timeout.default(600_000),
});
export type GitCheckoutBody = z.infer<typeof GitCheckoutBody>;

export const GitCheckoutResult = z.object({
  success: z.literal(true),
  repoUrl: z.string(),
  branch: z.string(),
  targetDir: z.string(),
  timestamp: z.string(),
});
export type GitCheckoutResult = z.infer<typeof GitCheckoutResult>;

export const GitEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), text: z.string() }),
  z.object({ type: z.literal("complete"), result: GitCheckoutResult }),
  z.object({ type: z.literal("error"), error: ErrorBody }),
]);
