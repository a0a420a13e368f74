import { z } from "zod";
import { ErrorBody } from "./errors.ts";

/** What the daemon says of itself. */
export const Health = z.object({
  version: z.string(),
  wire: z.number().int(),
  tag: z.string(),
  pid: z.number().int(),
  dataDir: z.string(),
  startedAt: z.number(),
});
export type Health = z.infer<typeof Health>;

/** One thing this host can or cannot do, and the remedy. */
export const Check = z.object({
  name: z.string(),
  ok: z.boolean(),
  /** False: the system works without it. */
  needed: z.boolean(),
  detail: z.string(),
  remedy: z.string().optional(),
});
export type Check = z.infer<typeof Check>;

export const ImageName = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, "an image name has 1 to 63 of a-z 0-9 . _ -");

export const ImageInfo = z.object({
  name: z.string(),
  digest: z.string(),
  sizeBytes: z.number().int(),
  createdAt: z.number(),
});
export type ImageInfo = z.infer<typeof ImageInfo>;

export const BuildEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("step"), text: z.string() }),
  z.object({ type: z.literal("complete"), image: ImageInfo }),
  z.object({ type: z.literal("error"), error: ErrorBody }),
]);
export type BuildEvent = z.infer<typeof BuildEvent>;
