import { SandboxError } from "../../protocol/errors.ts";
import type { ExposedPort, ExposePortBody } from "../../protocol/port.ts";
import type { ServeTable } from "./call.ts";
import type { Machines } from "./machines.ts";
import type { PortRow, PortTable } from "./port-table.ts";
import { isToken, labelOf, newPortToken, slugOf } from "./preview-name.ts";
import type { SandboxRecord } from "./record.ts";
import type { Sandboxes } from "./sandboxes.ts";

type Verb = "exposePort" | "listExposedPorts" | "unexposePort" | "validatePortToken";

/** Where the daemon serves previews. */
export type PreviewPlaces = {
  /** What it listens on; 0 until it does. */
  apiPort: number;
  /** The domain of settings; without one, localhost. */
  domain?: string;
  /** Origin of the listener for previews by path. */
  pathOrigin?: string;
};

/** Verbs about the URLs of ports. None of them wakes a sandbox. */
export function portVerbs({ ports, previewPlaces }: Machines, sandboxes: Sandboxes): ServeTable<Verb> {
  return {
    async exposePort(_, { params, body }) {
      const record = sandboxes.find(params.sandbox) ?? (await sandboxes.configure(params.sandbox, {}));
      return describePort(expose(record, ports, body), previewPlaces, sandboxes.isAwake(record.key));
    },
    async listExposedPorts(_, { params }) {
      const { key } = sandboxes.require(params.sandbox);
      return { ports: ports.of(key).map((row) => describePort(row, previewPlaces, sandboxes.isAwake(key))) };
    },
    async unexposePort(_, { params }) {
      const { key } = sandboxes.require(params.sandbox);
      if (!ports.remove(key, params.port)) throw notExposed(params.sandbox, params.port);
      return {};
    },
    async validatePortToken(_, { params, body }) {
      const row = ports.find(sandboxes.require(params.sandbox).key, params.port);
      return { valid: row !== undefined && isToken(row, body.token) };
    },
  };
}

function expose({ key, name: sandbox }: SandboxRecord, ports: PortTable, body: ExposePortBody): PortRow {
  const { port, hostname } = body;
  const former = ports.find(key, port);
  const differs = (what: "token" | "auth") => former && body[what] !== undefined && body[what] !== former[what];
  if (differs("token") || differs("auth")) {
    throw new SandboxError(
      "PORT_ALREADY_EXPOSED",
      `Cannot expose port ${port} of sandbox "${sandbox}": it has a URL with another ${differs("token") ? "token" : "auth"}`,
      { suggestion: "Call unexposePort first: the former URL is valid no longer then", details: { port } },
    );
  }
  const name = body.name ?? former?.name;
  const domain = hostname?.toLowerCase() ?? former?.domain;
  const row = {
    sandboxKey: key,
    port,
    slug: slugOf(sandbox),
    token: former?.token ?? body.token ?? newPortToken(),
    auth: former?.auth ?? body.auth ?? "token",
    ...(name !== undefined && { name }),
    ...(domain !== undefined && { domain }),
  };
  const other = findPreview(ports, labelOf({ ...row, gone: new AbortController() }));
  if (other && other.sandboxKey !== key) {
    throw new SandboxError(
      "PORT_ALREADY_EXPOSED",
      `Cannot expose port ${port} of sandbox "${sandbox}": another sandbox has the same address`,
      { suggestion: "Choose another token", details: { port } },
    );
  }
  return ports.put(row);
}

/** The preview that a label names and opens, in any case of letters. A wrong token is the same as no such preview. */
export function findPreview(ports: PortTable, label: string): PortRow | undefined {
  return ports.labelled(label.toLowerCase());
}

/** An exposed port as it is told. */
export function describePort(row: PortRow, places: PreviewPlaces, awake: boolean): ExposedPort {
  const label = labelOf(row);
  return {
    port: row.port,
    ...(row.name !== undefined && { name: row.name }),
    url: urlOf(label, row.domain ?? places.domain ?? "localhost", places.apiPort),
    ...(places.pathOrigin !== undefined && { pathUrl: `${places.pathOrigin}/p/${label}/` }),
    auth: row.auth,
    status: awake ? "active" : "inactive",
  };
}

/** Names of this machine are served here, without TLS; any other is somebody's who has put TLS before us. */
function urlOf(label: string, domain: string, apiPort: number): string {
  const [, scheme, name = "", port] = /^(https?:\/\/)?([^:]*)(:\d+)?$/.exec(domain) ?? [];
  const local = name === "localhost" || name.endsWith(".localhost");
  const places = local && port === undefined ? `:${apiPort}` : (port ?? "");
  return `${scheme ?? (local ? "http://" : "https://")}${label}.${name}${places}`;
}

function notExposed(sandbox: string, port: number): SandboxError {
  return new SandboxError("PORT_NOT_EXPOSED", `Cannot find a URL of port ${port} of sandbox "${sandbox}"`, {
    suggestion: "Call exposePort first",
    details: { port },
  });
}
