import { z } from "zod";
import { ClassName, SandboxId } from "./names.ts";
import { Duration, EnvVars, InstanceChoice, Labels } from "./options.ts";

export const SandboxState = z.enum(["none", "starting", "running", "stopping", "asleep"]);
export type SandboxState = z.infer<typeof SandboxState>;

/** Why a run ended. */
export const EndReason = z.enum([
  "asked",
  "idle",
  "lifetime",
  "memory",
  "space",
  "agent-lost",
  "host-restart",
  "start-failed",
]);
export type EndReason = z.infer<typeof EndReason>;

/** What is known of a sandbox without waking it. Times are milliseconds since 1970. */
export const SandboxInfo = z.object({
  id: SandboxId,
  state: SandboxState,
  /** Number of the current run, or of the last one; 0 before the first. */
  run: z.number().int(),
  isolation: z.enum(["container", "gvisor"]),
  image: z.object({ name: z.string(), digest: z.string() }),
  instance: InstanceChoice,
  labels: Labels,
  /** The class that it was last used as; absent where no program has told one. */
  className: ClassName.optional(),
  ports: z.array(z.object({ port: z.number().int(), name: z.string().optional(), url: z.string() })),
  created: z.number(),
  lastActive: z.number(),
  sleepAfterMs: z.number(),
  keepAlive: z.boolean(),
  maxLifetimeMs: z.number().optional(),
  /** How the last run ended; absent before the first end. */
  lastEnd: z.object({ reason: EndReason, at: z.number(), detail: z.string().optional() }).optional(),
});
export type SandboxInfo = z.infer<typeof SandboxInfo>;

/** What can be changed at any time. Labels replace the former ones; environment variables are added, null removes one. */
export const SandboxSettings = z.strictObject({
  sleepAfter: Duration.optional(),
  keepAlive: z.boolean().optional(),
  labels: Labels.optional(),
  envVars: EnvVars.optional(),
});
export type SandboxSettings = z.infer<typeof SandboxSettings>;

export const ListQuery = z.strictObject({
  state: SandboxState.optional(),
  /** JSON object: only sandboxes that have all of these labels. */
  labels: z
    .string()
    .transform((text, context): Labels => {
      try {
        return Labels.parse(JSON.parse(text));
      } catch {
        context.addIssue({ code: "custom", message: 'labels is a JSON object of strings, such as {"team":"data"}' });
        return z.NEVER;
      }
    })
    .optional(),
});

/** An open connection out of a sandbox. */
export const ConnectionInfo = z.object({
  host: z.string(),
  port: z.number().int(),
  state: z.enum(["dialling", "open", "closing", "refused"]),
  openedAt: z.number(),
  bytesUp: z.number().int(),
  bytesDown: z.number().int(),
});
export type ConnectionInfo = z.infer<typeof ConnectionInfo>;
