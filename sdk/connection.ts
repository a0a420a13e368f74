import { SandboxError } from "../protocol/errors.ts";
import type { ImageInfo } from "../protocol/machine.ts";
import type { SandboxInfo, SandboxState } from "../protocol/sandbox.ts";
import { endpoint, findEndpoint, type ConnectOptions } from "./endpoint.ts";
import { createTransport, type Transport } from "./transport.ts";

/** A daemon, as programs see it. Holds nothing open while no call is under way. */
export class Connection {
  /** For the command line and the console: verbs by name. Programs use the methods. */
  readonly transport: Transport;

  /** Not for programs: `connect` makes them. */
  constructor(transport: Transport) {
    this.transport = transport;
  }

  /** The daemon's sandboxes; wakes none. `labels`: only those that have all of these; `state`: only those in it. */
  async listSandboxes(filter: { labels?: Record<string, string>; state?: SandboxState } = {}): Promise<SandboxInfo[]> {
    const query = {
      ...(filter.state !== undefined && { state: filter.state }),
      ...(filter.labels && { labels: JSON.stringify(filter.labels) }),
    };
    return (await this.transport.json("listSandboxes", { params: {}, query })).sandboxes;
  }

  /** The images of the daemon's machine. */
  async listImages(): Promise<ImageInfo[]> {
    return (await this.transport.json("listImages", { params: {} })).images;
  }

  /** Throws NOT_SUPPORTED: this version has no snapshots. */
  async listSnapshots(): Promise<never> {
    throw notSupported("list snapshots");
  }

  /** Throws NOT_SUPPORTED: this version has no snapshots. */
  async deleteSnapshot(_id: string): Promise<never> {
    throw notSupported("delete a snapshot");
  }

  /** Throws NOT_SUPPORTED: this version does not meter. */
  async usage(): Promise<never> {
    throw notSupported("tell the usage");
  }

  /** Ends the calls under way with ABORTED and refuses later ones. Sandboxes and their commands go on. */
  close(): void {
    this.transport.close();
  }
}

function notSupported(what: string): SandboxError {
  return new SandboxError("NOT_SUPPORTED", `Cannot ${what}: this version does not have it`);
}

/**
 * A daemon by its URL and token. What is left out comes from ATOLL_URL and ATOLL_TOKEN, else from the file that the
 * machine's own daemon writes (/run/atoll/connection.json). Nothing is sent before the first call.
 *
 * Throws VALIDATION_FAILED for a URL or token that cannot be one. When no daemon is there, the first call throws
 * SANDBOX_UNAVAILABLE.
 */
export function connect(options: ConnectOptions = {}): Connection {
  if (options.url !== undefined) endpoint(options.url, options.token);
  return new Connection(createTransport(() => findEndpoint(options)));
}

let shared: Connection | undefined;

/** The connection of programs that name none. */
export function defaultConnection(): Connection {
  return (shared ??= connect());
}
