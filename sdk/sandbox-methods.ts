import type { SandboxInfo } from "../protocol/sandbox.ts";
import type { Variables } from "./exec-options.ts";
import type { Session, SessionMethods, SessionOptions } from "./session-methods.ts";

/** What can be done with a sandbox: everything a session can, in its default session, and what concerns it as a whole. */
export interface SandboxMethods extends SessionMethods {
  /** The sandbox's id. */
  readonly id: string;

  /**
   * Sets environment variables of the sandbox and its default session, for the commands to come; undefined or null
   * unsets one. They outlive sleep. Without a default session it starts nothing.
   */
  setEnvVars(variables: Variables): Promise<void>;

  /**
   * Makes a session: saved shell state of its own, which outlives sleep. Throws SESSION_ALREADY_EXISTS, FILE_NOT_FOUND for
   * a missing `cwd`.
   */
  createSession(options?: SessionOptions): Promise<Session>;

  /** A session that was made before. Throws SESSION_NOT_FOUND. */
  getSession(id: string): Promise<Session>;

  /** Forgets a session; its running commands go on. Throws SESSION_NOT_FOUND. */
  deleteSession(id: string): Promise<{ success: true; sessionId: string; timestamp: string }>;

  /** Starts or wakes the sandbox; every verb that needs it does so by itself. Throws NOT_SUPPORTED for a snapshot. */
  start(options?: { snapshot?: string }): Promise<SandboxInfo>;

  /**
   * Sleep now: processes get `signal` (default "SIGTERM") and end, the disk stays, the next verb wakes it. `existed` is
   * false for a name without a sandbox.
   */
  stop(signal?: string): Promise<{ existed: boolean }>;

  /** Removes the sandbox and everything it has; its name is free at once. `existed` is false for a name without one. */
  destroy(): Promise<{ existed: boolean }>;

  /** What is known of the sandbox; wakes nothing. Throws SANDBOX_NOT_FOUND. */
  info(): Promise<SandboxInfo>;

  /** Changes the idle time after which it sleeps: "30s", "5m", "1h" or a number of seconds. */
  setSleepAfter(sleepAfter: string | number): Promise<void>;

  /** True: it never sleeps by itself. */
  setKeepAlive(keepAlive: boolean): Promise<void>;

  /** Replaces the labels. */
  setLabels(labels: Record<string, string>): Promise<void>;
}
