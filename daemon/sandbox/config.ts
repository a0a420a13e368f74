import type { z } from "zod";
import { SandboxError } from "../../protocol/errors.ts";
import {
  type Instance,
  instanceOf,
  type InstanceChoice,
  type Labels,
  parseDurationMs,
  pidsLimitOf,
  type SandboxConfig,
} from "../../protocol/options.ts";
import type { SandboxSettings } from "../../protocol/sandbox.ts";
import type { RunLimits } from "../runtime/spec.ts";

/** A sandbox's options with every default filled in, as its row keeps them. */
export type StoredConfig = {
  instance: InstanceChoice;
  cpuBurst: boolean;
  isolation: "container" | "gvisor";
  /** disk: kept until destroyed. none: thrown away when a run ends. Paths: all else is. */
  persist: "disk" | "none" | { paths: string[] };
  sleepAfterMs: number;
  keepAlive: boolean;
  maxLifetimeMs: number | null;
  labels: Labels;
  envVars: Record<string, string>;
  /** The class that it was last used as. */
  className?: string;
};

export const defaultImage = "base";

/** The stored form of a new sandbox's options. Throws NOT_SUPPORTED for what is not built yet: nothing is ignored. */
export function newConfig(given: SandboxConfig, defaults: { sleepAfterMs: number }): StoredConfig {
  const base: StoredConfig = {
    instance: "basic",
    cpuBurst: true,
    isolation: "container",
    persist: "disk",
    sleepAfterMs: defaults.sleepAfterMs,
    keepAlive: false,
    maxLifetimeMs: null,
    labels: {},
    envVars: {},
  };
  requireBuilt(given);
  return {
    ...changeSettings(base, given),
    instance: given.instance ?? base.instance,
    cpuBurst: given.cpuBurst ?? base.cpuBurst,
    persist: persistence(given) ?? base.persist,
    maxLifetimeMs: durationMs(given.maxLifetime) ?? base.maxLifetimeMs,
    ...(given.className !== undefined && { className: given.className }),
  };
}

/**
 * The options of an existing sandbox after `given`. Settings change at once, the instance with the next start, the paths that are kept
 * with the next end or start. Image, isolation and the type of persistence belong to the disk: another one is refused with
 * VALIDATION_FAILED.
 */
export function changeConfig(name: string, current: StoredConfig, image: string, given: SandboxConfig): StoredConfig {
  requireBuilt(given);
  requireSame(name, "image", image, given.image);
  requireSame(name, "isolation", current.isolation, given.isolation);
  requireSame(name, "persistAcrossSessions", typeOf(current.persist), given.persistAcrossSessions?.type);
  return {
    ...changeSettings(current, given),
    instance: given.instance ?? current.instance,
    cpuBurst: given.cpuBurst ?? current.cpuBurst,
    persist: persistence(given) ?? current.persist,
    maxLifetimeMs: durationMs(given.maxLifetime) ?? current.maxLifetimeMs,
    ...(given.className !== undefined && { className: given.className }),
  };
}

/** Settings: labels replace the former ones, environment variables are added, null removes one. */
export function changeSettings(current: StoredConfig, given: z.output<typeof SandboxSettings>): StoredConfig {
  const envVars = { ...current.envVars };
  for (const [name, value] of Object.entries(given.envVars ?? {})) {
    if (value === null) delete envVars[name];
    else envVars[name] = value;
  }
  return {
    ...current,
    sleepAfterMs: durationMs(given.sleepAfter) ?? current.sleepAfterMs,
    keepAlive: given.keepAlive ?? current.keepAlive,
    labels: given.labels ?? current.labels,
    envVars,
  };
}

/** What a run of this sandbox may use. */
export function limitsOf(config: StoredConfig): Instance & { pids: number; cpuBurst: boolean } {
  return { ...instanceOf(config.instance), pids: pidsLimitOf(config.instance), cpuBurst: config.cpuBurst };
}

/** The same as the runtime is told. */
export function runLimitsOf(config: StoredConfig): RunLimits {
  const { vcpu, cpuBurst, memoryMiB, pids } = limitsOf(config);
  return { vcpu, cpuBurst, memoryBytes: memoryMiB * 1024 ** 2, pids };
}

/** What may be written to its disk. */
export function diskBytesOf(config: StoredConfig): number {
  return limitsOf(config).diskMB * 1_000_000;
}

/** The paths that outlive a run, where that is not all or nothing. */
export function keptPathsOf({ persist }: StoredConfig): readonly string[] | undefined {
  return typeof persist === "object" ? persist.paths : undefined;
}

function durationMs(duration: string | number | undefined): number | undefined {
  return duration === undefined ? undefined : parseDurationMs(duration);
}

function persistence({ persistAcrossSessions: given }: SandboxConfig): StoredConfig["persist"] | undefined {
  if (given?.type === "directory") return { paths: given.paths };
  return given?.type === "disk" || given?.type === "none" ? given.type : undefined;
}

function typeOf(persist: StoredConfig["persist"]): "disk" | "none" | "directory" {
  return typeof persist === "object" ? "directory" : persist;
}

function requireBuilt(given: SandboxConfig): void {
  if (given.persistAcrossSessions?.type === "memory") {
    throw notSupported('persistAcrossSessions "memory"', 'Use { type: "disk" }, the default, "directory" or "none"');
  }
  if (given.isolation === "gvisor") throw notSupported('isolation "gvisor"', 'Use "container", the default');
}

function notSupported(what: string, suggestion: string): SandboxError {
  return new SandboxError("NOT_SUPPORTED", `Cannot use ${what}: it is not built yet`, { suggestion });
}

function requireSame(name: string, option: string, current: string, given: string | undefined): void {
  if (given === undefined || given === current) return;
  throw new SandboxError(
    "VALIDATION_FAILED",
    `Cannot change ${option} of sandbox "${name}" from "${current}" to "${given}": its disk was made with it`,
    {
      suggestion: "Destroy the sandbox and make it anew, or use another name",
    },
  );
}
