import type { z } from "zod";
import { SandboxError } from "../protocol/errors.ts";
import { SandboxConfig } from "../protocol/options.ts";
import type { InstanceChoice } from "../protocol/options.ts";
import type { Variables } from "./exec-options.ts";

/** How a sandbox is made, kept and spoken to. Only what differs from the default needs to be said. */
export type SandboxOptions = {
  /** Idle time after which it sleeps: "30s", "5m", "1h" or a number of seconds. Default "10m". */
  sleepAfter?: string | number | undefined;
  /** True: it never sleeps by itself. Default false. */
  keepAlive?: boolean | undefined;
  /** Longest time of one run, busy or not, as in `sleepAfter`. Default: no limit. */
  maxLifetime?: string | number | undefined;
  /** False: top-level `exec(string)` calls start from a fresh shell each. Default true. */
  enableDefaultSession?: boolean | undefined;
  /** True: the id is lower-cased. Default false. */
  normalizeId?: boolean | undefined;
  /** Names and values to find sandboxes by. */
  labels?: Record<string, string> | undefined;
  /** Name of an image on the daemon's machine. Default "base". Decided when the sandbox is made. */
  image?: string | undefined;
  /** An instance type, or its numbers. Default "basic". Decided when the sandbox is made. */
  instance?: InstanceChoice | undefined;
  /** False: never more CPU than the instance's share, also on an idle machine. Default true. */
  cpuBurst?: boolean | undefined;
  /** Environment variables of every process; undefined or null unsets one. */
  envVars?: Variables | undefined;
  /** Refused with NOT_SUPPORTED where the machine cannot give it. Default "container". Decided when the sandbox is made. */
  isolation?: "container" | "gvisor" | undefined;
  /**
   * What outlives a run: `{ type: "disk" }` all of the disk, the default; `{ type: "none" }` nothing; `{ type: "directory", paths }` only
   * these absolute paths. The type is decided when the sandbox is made, the paths can be changed.
   */
  persistAcrossSessions?: { type: string; paths?: string[] } | undefined;
};

/** Options that are ours alone; the others go to the daemon. */
const local = ["enableDefaultSession", "normalizeId"];

/** A class is told by its name, which is no option and no field. */
const configured = Object.keys(SandboxConfig.shape).filter((name) => name !== "className");

/**
 * What the daemon is told: the fields of a subclass, and above them the options of the call, and the class's name. Undefined
 * where that is nothing. Throws VALIDATION_FAILED for what no sandbox can have, before anything is sent.
 */
export function configOf(
  id: string,
  fields: object,
  options: SandboxOptions,
  className?: string,
): SandboxConfig | undefined {
  const unknown = Object.keys(options).find((name) => !configured.includes(name) && !local.includes(name));
  if (unknown !== undefined) throw invalid(id, `there is no option ${JSON.stringify(unknown)}`);
  const said: Record<string, unknown> = {
    ...pick(fields),
    ...pick(options),
    ...(className !== undefined && { className }),
  };
  if (Object.keys(said).length === 0) return undefined;
  if (isObject(said["envVars"])) said["envVars"] = nullForUndefined(said["envVars"]);
  const parsed = SandboxConfig.safeParse(said);
  if (parsed.success) return parsed.data;
  throw invalid(id, wordsOf(parsed.error));
}

function pick(from: object): Record<string, unknown> {
  const picked: Record<string, unknown> = {};
  for (const name of configured) {
    const value = (from as Record<string, unknown>)[name];
    if (value !== undefined) picked[name] = value;
  }
  return picked;
}

function isObject(value: unknown): value is Variables {
  return typeof value === "object" && value !== null;
}

/** JSON drops undefined; null is what unsets a variable on the wire. */
export function nullForUndefined(variables: Variables): Record<string, string | null> {
  return Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, value ?? null]));
}

function invalid(id: string, why: string): SandboxError {
  return new SandboxError("VALIDATION_FAILED", `Cannot configure sandbox ${JSON.stringify(id)}: ${why}`);
}

function wordsOf(error: z.ZodError): string {
  return error.issues.map((issue) => [issue.path.join("."), issue.message].filter(Boolean).join(": ")).join("; ");
}

/** What a class may say that no daemon does yet. A promise that is not kept is refused, never passed over. */
const notYetFields = ["allowedHosts", "deniedHosts", "outboundRules"];
const notYetStatics = ["outbound", "outboundByHost", "outboundHandlers"];

const callbacks = ["onStart", "onStop", "onError", "onActivityExpired"];

/**
 * Throws NOT_SUPPORTED when a class asks for what is not built yet, or has callbacks and is not `followed`: nobody would call
 * them.
 */
export function requireSupported(id: string, fields: object, followed: boolean): void {
  const own = fields as Record<string, unknown>;
  const statics = fields.constructor as unknown as Record<string, unknown>;
  const callback = followed ? undefined : callbacks.find((name) => own[name] !== undefined);
  if (callback !== undefined) {
    throw notSupported(
      id,
      callback,
      'Nobody calls it in this program: run the module that exports the class with "atoll run", or give the binding to followLifecycle first',
    );
  }
  const asked =
    notYetFields.find((name) => own[name] !== undefined) ??
    (own["enableInternet"] === false ? "enableInternet = false" : undefined) ??
    (own["interceptHttps"] === true ? "interceptHttps = true" : undefined) ??
    notYetStatics.filter((name) => statics[name] !== undefined).map((name) => `static ${name}`)[0];
  if (asked !== undefined) throw notSupported(id, asked, "This version has no outbound policies yet: remove it");
}

/** Whether a sandbox wants to be told of its life. */
export function hasCallbacks(fields: object): boolean {
  return callbacks.some((name) => (fields as Record<string, unknown>)[name] !== undefined);
}

function notSupported(id: string, field: string, suggestion: string): SandboxError {
  return new SandboxError("NOT_SUPPORTED", `Cannot use sandbox ${JSON.stringify(id)}: its class sets ${field}`, {
    suggestion,
    details: { field },
  });
}
