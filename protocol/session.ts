import { z } from "zod";
import { SandboxPath, ShortId } from "./names.ts";
import { EnvVars } from "./options.ts";
import { Timeout } from "./process.ts";

export const CreateSession = z.strictObject({
  id: ShortId,
  env: EnvVars.optional(),
  cwd: SandboxPath.optional(),
  /** Default time limit of the session's commands. */
  commandTimeoutMs: Timeout.optional(),
});

export const SessionInfo = z.object({
  id: z.string(),
  cwd: z.string(),
  createdAt: z.number(),
  commandTimeoutMs: z.number().int().optional(),
  functions: z.boolean(),
});
export type SessionInfo = z.infer<typeof SessionInfo>;
