import { z } from "zod";
import { ErrorBody } from "./errors.ts";
import { ClassName, SandboxId } from "./names.ts";
import { EndReason } from "./sandbox.ts";

/** An app exports a few classes; more than this is a mistake. */
const classesLimit = 100;

export const LifecycleQuery = z.strictObject({
  /** Names of classes, with commas between. */
  classes: z
    .string()
    .transform((text) => text.split(","))
    .pipe(z.array(ClassName).max(classesLimit, `at most ${classesLimit} classes`)),
});

const about = {
  sandbox: SandboxId,
  className: ClassName,
  /** Number of the run; for a start that failed, of the last one there was. */
  run: z.number().int(),
  /** Milliseconds since 1970. */
  time: z.number(),
};

/** What happens to the sandboxes of some classes, in order. Each has an id: who comes back with it misses nothing. */
export const LifecycleEvent = z.discriminatedUnion("type", [
  /** First, for who comes without an id: what happens from now on is told. */
  z.object({ type: z.literal("following") }),
  /** It is awake: started, woken, or given a run that waited for it. */
  z.object({ type: z.literal("start"), ...about }),
  /** Nobody could be given a run. */
  z.object({ type: z.literal("startFailed"), ...about, error: ErrorBody }),
  /** It is due to sleep because it is idle, and will unless it is used now. */
  z.object({ type: z.literal("activityExpired"), ...about }),
  /** Its run is over. `error`: nobody has asked for that. */
  z.object({
    type: z.literal("stop"),
    ...about,
    exitCode: z.number().int(),
    reason: EndReason,
    error: ErrorBody.optional(),
  }),
  /** Last, when the stream itself fails. */
  z.object({ type: z.literal("error"), timestamp: z.string(), error: ErrorBody }),
]);
export type LifecycleEvent = z.infer<typeof LifecycleEvent>;
