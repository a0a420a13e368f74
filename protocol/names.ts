import { z } from "zod";
import { SandboxError } from "./errors.ts";

/** Words that stand in places where ids stand (host names, paths), so no sandbox may have them. */
const reservedIds = new Set(["localhost", "api", "www", "console", "atoll", "admin", "internal", "all", "new"]);

const idPattern = /^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?$/;

/** Why `id` cannot name a sandbox, or undefined when it can. 63 characters: the longest DNS label, which previews use. */
export function whyNotSandboxId(id: string): string | undefined {
  if (id.length === 0) return "it is empty";
  if (id.length > 63) return `it has ${id.length} characters, 63 are the most`;
  if (!idPattern.test(id)) return "letters, digits and hyphens are allowed, a hyphen not first or last";
  if (reservedIds.has(id.toLowerCase())) return "the name is reserved";
  return undefined;
}

/** Throws INVALID_SANDBOX_ID unless `id` can name a sandbox. */
export function requireSandboxId(id: string): void {
  const why = whyNotSandboxId(id);
  if (why === undefined) return;
  const shown = id.length > 80 ? `${id.slice(0, 80)}…` : id;
  throw new SandboxError("INVALID_SANDBOX_ID", `Cannot use ${JSON.stringify(shown)} as a sandbox id: ${why}`, {
    suggestion: 'Choose 1 to 63 letters, digits and hyphens, such as "agent-47"',
  });
}

export const SandboxId = z.string().check((context) => {
  const why = whyNotSandboxId(context.value);
  if (why)
    context.issues.push({ code: "custom", message: why, input: context.value, params: { code: "INVALID_SANDBOX_ID" } });
});

/** Ids of sessions and processes: chosen by callers or random. */
export const ShortId = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, "1 to 64 letters, digits, dots, underscores and hyphens");

/**
 * The name of a class of sandboxes, as an app binds it: an identifier of JavaScript, without the letters that look like others.
 */
export const ClassName = z
  .string()
  .regex(/^[A-Za-z_$][A-Za-z0-9_$]{0,63}$/, "a class name has 1 to 64 of A-Z a-z 0-9 _ $, a digit not first");

/** A path inside a sandbox; relative ones start at the session's directory. 4,096 bytes is the kernel's longest path. */
export const SandboxPath = z
  .string()
  .min(1, "a path is needed")
  .refine((path) => !path.includes("\0"), "a path cannot contain NUL")
  .refine((path) => new TextEncoder().encode(path).length < 4096, "a path has at most 4,095 bytes");

/** A user name or number inside the sandbox. */
export const UserName = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$/, "a user name or number");
