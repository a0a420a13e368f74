/** What an outbound handler is told beside the request. */
export type OutboundContext = { containerId: string; sandboxId: string; className: string; params?: unknown };

/** Answers a request of a sandbox in the app's process. `env` is the app's own. */
export type OutboundHandler = (request: Request, env: never, context: OutboundContext) => Response | Promise<Response>;

/**
 * What a subclass of Sandbox may set, read at the first verb. Types are wide, so that fields need no annotations
 * (`persistAcrossSessions = { type: "disk" }`); values are validated at run time. Meanings and defaults are those of
 * SandboxOptions, which `getSandbox` takes and which come before the fields.
 */
export interface SandboxFields {
  sleepAfter?: string | number;
  keepAlive?: boolean;
  maxLifetime?: string | number;
  enableDefaultSession?: boolean;
  normalizeId?: boolean;
  labels?: Record<string, string>;
  image?: string;
  instance?: string | { vcpu: number; memoryMiB: number; diskMB: number };
  cpuBurst?: boolean;
  envVars?: Record<string, string | null | undefined>;
  isolation?: string;
  persistAcrossSessions?: { type: string; paths?: string[] };

  /** Whether the internet can be reached. Default true; false is NOT_SUPPORTED in this version. */
  enableInternet?: boolean;
  /** Default false; true is NOT_SUPPORTED in this version. */
  interceptHttps?: boolean;
  /** NOT_SUPPORTED in this version. */
  allowedHosts?: string[];
  /** NOT_SUPPORTED in this version. */
  deniedHosts?: string[];

  /**
   * The callbacks are called in the program that follows the class: a module that `atoll run` hosts, or one that calls
   * `followLifecycle`. Elsewhere a class that has one is refused with NOT_SUPPORTED. `this` is the sandbox; those of one
   * sandbox come one after another, in the order of what happened. None delays what it tells of.
   *
   * The sandbox is awake: made, woken, or given a run that waited for it.
   */
  onStart?(): void | Promise<void>;
  /**
   * It has gone to sleep, ended or was destroyed: a call of `this` wakes it again, or makes it anew. `reason` is the one of
   * `info().lastEnd`; `exitCode` is 137 where nobody asked for the end ("memory", "agent-lost", "host-restart"), else 0.
   */
  onStop?(end: { exitCode: number; reason: string }): void | Promise<void>;
  /** A SandboxError: a start failed, or the run ended though nobody asked, which `onStop` tells next. */
  onError?(error: unknown): void | Promise<void>;
  /**
   * It was idle for `sleepAfter`, and sleeps after at most 5 s unless it is used, or `setKeepAlive(true)`, by then. One that
   * always uses it keeps it awake for ever: `await this.stop()` at the end lets it sleep at once.
   */
  onActivityExpired?(): void | Promise<void>;
}

/** What a subclass of Sandbox may set on the class itself. All NOT_SUPPORTED in this version. */
export interface SandboxStatics {
  outbound?: OutboundHandler;
  outboundByHost?: Record<string, OutboundHandler>;
  outboundHandlers?: Record<string, OutboundHandler>;
}

/**
 * The same members once more, abstract. TypeScript's noImplicitOverride wants `override` before a member that the base class
 * has, unless the base's is abstract; and it wants abstract members implemented, unless they are not abstract alone. A
 * type that is both (`SandboxFields & AbstractFields`) lets users write a field with and without `override`, or not at all.
 * No such class exists at run time.
 */
export declare abstract class AbstractFields implements SandboxFields {
  abstract sleepAfter?: string | number;
  abstract keepAlive?: boolean;
  abstract maxLifetime?: string | number;
  abstract enableDefaultSession?: boolean;
  abstract normalizeId?: boolean;
  abstract labels?: Record<string, string>;
  abstract image?: string;
  abstract instance?: string | { vcpu: number; memoryMiB: number; diskMB: number };
  abstract cpuBurst?: boolean;
  abstract envVars?: Record<string, string | null | undefined>;
  abstract isolation?: string;
  abstract persistAcrossSessions?: { type: string; paths?: string[] };
  abstract enableInternet?: boolean;
  abstract interceptHttps?: boolean;
  abstract allowedHosts?: string[];
  abstract deniedHosts?: string[];
  abstract onStart?(): void | Promise<void>;
  abstract onStop?(end: { exitCode: number; reason: string }): void | Promise<void>;
  abstract onError?(error: unknown): void | Promise<void>;
  abstract onActivityExpired?(): void | Promise<void>;
}

/** As AbstractFields, for the class itself. */
export declare abstract class AbstractStatics implements SandboxStatics {
  abstract outbound?: OutboundHandler;
  abstract outboundByHost?: Record<string, OutboundHandler>;
  abstract outboundHandlers?: Record<string, OutboundHandler>;
}
