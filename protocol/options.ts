import { z } from "zod";
import { ClassName } from "./names.ts";

/** What an instance type gives: vCPU is a weight and a floor, memory and disk are limits. */
export const Instance = z.object({
  vcpu: z.number().positive().max(256),
  memoryMiB: z.number().int().min(64).max(1_048_576),
  diskMB: z.number().int().min(64).max(16_777_216),
});
export type Instance = z.infer<typeof Instance>;

/** The named instance types. */
export const instanceTypes = {
  lite: { vcpu: 1 / 16, memoryMiB: 256, diskMB: 2_000 },
  basic: { vcpu: 1 / 4, memoryMiB: 1_024, diskMB: 4_000 },
  "standard-1": { vcpu: 1 / 2, memoryMiB: 4_096, diskMB: 8_000 },
  "standard-2": { vcpu: 1, memoryMiB: 6_144, diskMB: 12_000 },
  "standard-3": { vcpu: 2, memoryMiB: 8_192, diskMB: 16_000 },
  "standard-4": { vcpu: 4, memoryMiB: 12_288, diskMB: 20_000 },
} as const satisfies Record<string, Instance>;

export type InstanceType = keyof typeof instanceTypes;

export const InstanceChoice = z.union([
  z.enum(Object.keys(instanceTypes) as [InstanceType, ...InstanceType[]]),
  Instance,
]);
export type InstanceChoice = z.infer<typeof InstanceChoice>;

/** The numbers behind a choice of instance. */
export function instanceOf(choice: InstanceChoice): Instance {
  return typeof choice === "string" ? instanceTypes[choice] : choice;
}

/**
 * Most processes and threads of a sandbox. The two small types get fewer, because their memory could not hold more stacks;
 * numbers of one's own say nothing of processes, so they get what all others get.
 */
export function pidsLimitOf(choice: InstanceChoice): number {
  if (choice === "lite") return 512;
  return choice === "basic" ? 1_024 : 4_096;
}

const durationUnits = { s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** Milliseconds of "30s", "5m", "1h" or a number of seconds; undefined when it is none of these. */
export function parseDurationMs(duration: string | number): number | undefined {
  if (typeof duration === "number") return duration >= 0 && Number.isFinite(duration) ? duration * 1_000 : undefined;
  const match = /^(\d+(?:\.\d+)?)(s|m|h)$/.exec(duration.trim());
  return match ? Number(match[1]) * durationUnits[match[2] as keyof typeof durationUnits] : undefined;
}

/** "30s" | "5m" | "1h" | seconds. Setting a time beyond 30 days is taken for a mistake: keepAlive says "never". */
export const Duration = z
  .union([z.string(), z.number()])
  .refine((value) => parseDurationMs(value) !== undefined, 'a duration is "30s", "5m", "1h" or a number of seconds')
  .refine((value) => (parseDurationMs(value) ?? 0) <= 30 * 24 * 3_600_000, "a duration is at most 30 days");

/** NUL cannot stand in an environment; names with "=" cannot be told from values. Null unsets. */
export const EnvVars = z.record(
  z.string().regex(/^[^=\0]+$/, 'an environment variable\'s name has no "=" and no NUL'),
  z
    .string()
    .refine((value) => !value.includes("\0"), "an environment variable cannot contain NUL")
    .nullable(),
);
export type EnvVars = z.infer<typeof EnvVars>;

const Label = z.string().max(256, "a label has at most 256 characters");
export const Labels = z.record(z.string().min(1).max(63, "a label's name has at most 63 characters"), Label);
export type Labels = z.infer<typeof Labels>;

/** Why this path cannot be kept; undefined when it can. Lengths are the kernel's limits, in bytes. */
function whyNotKept(path: string): string | undefined {
  if (!path.startsWith("/")) return "a kept path is absolute: it begins with a slash";
  if (path === "/") return 'all of the disk is kept with { type: "disk" }, not with the path "/"';
  if (path.includes("\0") || /\p{Surrogate}/u.test(path)) return "a kept path is text without NUL";
  const names = path.slice(1).split("/");
  if (names.some((name) => name === "" || name === "." || name === ".."))
    return 'a kept path has no empty part, no "." and no "..", and no slash at its end';
  const bytes = (text: string) => new TextEncoder().encode(text).length;
  if (bytes(path) > 4_096) return "a kept path has at most 4096 bytes";
  if (names.some((name) => bytes(name) > 255)) return "each name in a kept path has at most 255 bytes";
  return undefined;
}

const KeptPath = z.string().superRefine((path, context) => {
  const why = whyNotKept(path);
  if (why !== undefined) context.addIssue({ code: "custom", message: why });
});

export const Persistence = z.discriminatedUnion("type", [
  z.object({ type: z.literal("disk") }),
  z.object({ type: z.literal("memory") }),
  z.object({ type: z.literal("none") }),
  z.object({ type: z.literal("directory"), paths: z.array(KeptPath).min(1).max(64) }),
]);

/**
 * How a sandbox is made and kept. Sent with every verb that may create it: the first one decides about `image`,
 * `instance`, `isolation` and the type of `persistAcrossSessions`; the others are settings and can be changed later.
 */
export const SandboxConfig = z.strictObject({
  image: z.string().min(1).max(255).optional(),
  instance: InstanceChoice.optional(),
  cpuBurst: z.boolean().optional(),
  isolation: z.enum(["container", "gvisor"]).optional(),
  persistAcrossSessions: Persistence.optional(),
  sleepAfter: Duration.optional(),
  keepAlive: z.boolean().optional(),
  maxLifetime: Duration.optional(),
  labels: Labels.optional(),
  envVars: EnvVars.optional(),
  /** The class whose callbacks are told of its life. */
  className: ClassName.optional(),
});
export type SandboxConfig = z.infer<typeof SandboxConfig>;
