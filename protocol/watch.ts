import { z } from "zod";
import { ErrorBody } from "./errors.ts";
import { SandboxPath, ShortId } from "./names.ts";

/** A glob of a path's last part ("*.ts"), or of the whole path below the watched directory where it has a slash. */
const Globs = z
  .array(
    z
      .string()
      .min(1)
      .max(1_024)
      .refine((glob) => !glob.includes("\0"), "a pattern cannot contain NUL"),
  )
  .max(256);

/** What is no source of anybody's: told only to those who name what they want. */
export const defaultExclude: readonly string[] = [".git", "node_modules", ".DS_Store"];

const watched = {
  path: SandboxPath,
  session: ShortId.default("default"),
  recursive: z.boolean().default(true),
  include: Globs.optional(),
  /** Default: `defaultExclude`, or nothing where `include` is given. */
  exclude: Globs.optional(),
};
const oneOfThem = (body: { include?: unknown; exclude?: unknown }) =>
  body.include === undefined || body.exclude === undefined;
const oneOfThemMessage = { message: "give `include` or `exclude`, not both" };

export const WatchBody = z.strictObject(watched).refine(oneOfThem, oneOfThemMessage);
export type WatchBody = z.infer<typeof WatchBody>;

export const ChangesBody = z
  .strictObject({ ...watched, since: z.string().max(256).optional() })
  .refine(oneOfThem, oneOfThemMessage);

export const FileEventType = z.enum(["create", "modify", "delete", "move_from", "move_to", "attrib"]);
export type FileEventType = z.infer<typeof FileEventType>;

/** `watching` first; `stopped` or `error` last. */
export const WatchEvent = z.discriminatedUnion("type", [
  /** What happens from now on is told. `path`: the watched directory, absolute. */
  z.object({ type: z.literal("watching"), path: z.string(), timestamp: z.string() }),
  z.object({
    type: z.literal("event"),
    eventType: FileEventType,
    /** Absolute. */
    path: z.string(),
    isDirectory: z.boolean(),
    timestamp: z.string(),
  }),
  /** Events were lost: look at the tree again. What happens from now on is told. */
  z.object({ type: z.literal("overflow"), timestamp: z.string() }),
  /** The directory is gone, or the sandbox went to sleep. */
  z.object({ type: z.literal("stopped"), reason: z.string(), timestamp: z.string() }),
  z.object({ type: z.literal("error"), timestamp: z.string(), error: ErrorBody }),
]);
export type WatchEvent = z.infer<typeof WatchEvent>;

/** `resync`: nobody knows what happened since then; look at the tree, and ask with the new version from then on. */
export const ChangesResult = z.object({ status: z.enum(["unchanged", "changed", "resync"]), version: z.string() });
