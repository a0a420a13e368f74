import type { SandboxInfo } from "../protocol/sandbox.ts";
import type { Variables } from "./exec-options.ts";
import type { ExposedPortInfo, ExposePortOptions, ExposePortResult } from "./port-types.ts";
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

  /**
   * Gives a port (1024 to 65535) a URL for browsers and programs; starts nothing. It stays valid over sleep and restarts until
   * `unexposePort`; a visit wakes the sandbox, and its services. The server inside may listen on its loopback only. Of a port
   * that has a URL already, the same one is given.
   *
   * Throws INVALID_PORT, PORT_ALREADY_EXPOSED when the port has a URL with another `token` or `auth`.
   */
  exposePort(port: number, options?: ExposePortOptions): Promise<ExposePortResult>;

  /** Takes a port's URL back: who is connected through it is cut. Throws PORT_NOT_EXPOSED. */
  unexposePort(port: number): Promise<void>;

  /** The ports that have a URL; wakes nothing. */
  getExposedPorts(): Promise<ExposedPortInfo[]>;

  /** Whether a port has a URL; wakes nothing. */
  isPortExposed(port: number): Promise<boolean>;

  /** Whether this token opens the port's preview; compared in constant time, wakes nothing. */
  validatePortToken(port: number, token: string): Promise<boolean>;

  /**
   * A request to a server in the sandbox, whether its port is exposed or not: an address (its host is what the server is told
   * as X-Forwarded-Host) or a path. Wakes the sandbox, and waits for its services. Redirects are answers.
   *
   * Throws SERVICE_NOT_RESPONDING, with what is listening, when nobody listens on the port.
   */
  containerFetch(request: Request | URL | string, port: number): Promise<Response>;
  containerFetch(request: Request | URL | string, init: RequestInit | undefined, port: number): Promise<Response>;

  /**
   * Passes a visitor's WebSocket on to a server in the sandbox: the answer to return from an app's `fetch`. Status 426 when the
   * request wants no WebSocket. Throws NOT_SUPPORTED where the runtime's fetch knows no WebSockets (Node).
   */
  wsConnect(request: Request, port: number): Promise<Response>;

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
