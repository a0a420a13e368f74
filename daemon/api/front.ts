import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { parsePreviewLabel, previewLabelOf } from "../../protocol/port.ts";
import { SandboxError } from "../../protocol/errors.ts";
import { hostName } from "./access.ts";
import type { Serving } from "./listen.ts";
import type { Previews, Sight } from "./preview.ts";
import { type RawHeaders, valueOf } from "./preview-headers.ts";
import { showTrouble, troubleOf } from "./preview-page.ts";
import { remember } from "./remember.ts";

export type FrontOptions = {
  api: RequestListener;
  previews: Previews;
  /** Host names of the API. A preview never has one of them. */
  names: ReadonlySet<string>;
  /** How visitors reach previews: the scheme that the inner server is told. */
  proto: (host: string) => string;
};

/**
 * What the daemon's own port serves. Before anything else a request is told to be for the API or for a preview, by its host
 * name alone: so no page of a sandbox ever has the API's origin.
 */
export function serveFront({ api, previews, names, proto }: FrontOptions): Serving {
  return {
    request(request, response) {
      const sight = sightOf(request, names, proto);
      if (sight === undefined) return void api(request, response);
      if (sight === "unclear") return refuse(request, response);
      void previews.show(request, response, sight);
    },
    wantsUpgrade(request) {
      return isUpgrade(request) && typeof sightOf(request, names, proto) === "object";
    },
    upgrade(request, socket, head) {
      const sight = sightOf(request, names, proto);
      if (typeof sight !== "object") return void socket.destroy();
      void previews.upgrade(request, socket, head, sight);
    },
  };
}

/** What the listener for previews by path serves: nothing but /p/LABEL/. */
export function servePaths(previews: Previews): Serving {
  return {
    request(request, response) {
      const { prefix, label, path } = splitPath(request.url ?? "");
      if (path === "" && label !== "" && parsePreviewLabel(label)) {
        // relative addresses in the page begin behind the slash
        response.writeHead(308, { location: `${prefix}/`, "content-length": 0 }).end();
        return;
      }
      void previews.show(request, response, sightByPath(request));
    },
    wantsUpgrade: isUpgrade,
    upgrade(request, socket, head) {
      void previews.upgrade(request, socket, head, sightByPath(request));
    },
  };
}

/** Undefined: the API's. "unclear": it says two things at once. */
function sightOf(
  request: IncomingMessage,
  names: ReadonlySet<string>,
  proto: (host: string) => string,
): Sight | "unclear" | undefined {
  const host = request.headers.host ?? "";
  const { name, label } = readHost(host);
  const path = request.url ?? "";
  if (names.has(name)) return sightOfCaller(request, path);
  if (label === undefined) return undefined;
  if (countHosts(request.rawHeaders) !== 1 || !path.startsWith("/")) return "unclear";
  return { label, path, shared: false, needsToken: false, visitor: visitorOf(request, proto(host)) };
}

/** Ports as such, and previews that an app passes on: for whoever has the API's token, which the previews ask for. */
function sightOfCaller(request: IncomingMessage, target: string): Sight | undefined {
  if (!target.startsWith("/v1/")) return undefined;
  const said = (name: string) => valueOf(request.rawHeaders, `atoll-forwarded-${name}`);
  const visitor = { proto: said("proto") ?? "http", address: said("for"), authorization: said("authorization") };
  const asked = {
    shared: false,
    needsToken: true,
    redirectsAs200: valueOf(request.rawHeaders, "atoll-redirects") === "as-200",
  };
  const ofLabel = /^\/v1\/previews\/([A-Za-z0-9_-]{1,63})(?=[/?]|$)/.exec(target);
  if (ofLabel) {
    const [front, label = ""] = ofLabel;
    const path = pathBehind(front, target);
    return { ...asked, label, path, visitor: { ...visitor, host: said("host") ?? "" } };
  }
  const ofPort = /^\/v1\/sandboxes\/([A-Za-z0-9-]{1,63})\/ports\/(\d{1,5})\/http(?=[/?]|$)/.exec(target);
  if (!ofPort) return undefined;
  const [front, sandbox = "", port] = ofPort;
  return {
    ...asked,
    sandbox,
    port: Number(port),
    path: pathBehind(front, target),
    visitor: { ...visitor, host: said("host") ?? `localhost:${port}` },
  };
}

/** What a Host header names, and where that is a preview's, its label. */
const readHost = remember(1_000, 255, (host) => {
  const name = hostName(host);
  return { name, label: previewLabelOf(name) };
});

function pathBehind(front: string, target: string): string {
  const rest = target.slice(front.length);
  return rest.startsWith("/") ? rest : `/${rest}`;
}

function sightByPath(request: IncomingMessage): Sight {
  const { prefix, label, path } = splitPath(request.url ?? "");
  return {
    label,
    path: pathBehind("", path),
    shared: true,
    needsToken: false,
    visitor: { ...visitorOf(request, "http"), prefix },
  };
}

function splitPath(target: string): { prefix: string; label: string; path: string } {
  const [prefix = "", label = ""] = /^\/p\/([^/?#]{1,63})(?=[/?]|$)/.exec(target) ?? [];
  return { prefix, label, path: target.slice(prefix.length) };
}

function visitorOf(request: IncomingMessage, proto: string) {
  const { authorization } = request.headers;
  return { host: request.headers.host ?? "", proto, address: request.socket.remoteAddress, authorization };
}

/** A GET without a body, and no h2c, which a server may always overlook. */
function isUpgrade(request: IncomingMessage): boolean {
  const { upgrade = "", "content-length": length = "0" } = request.headers;
  const hasBody = length !== "0" || request.headers["transfer-encoding"] !== undefined;
  return request.method === "GET" && !hasBody && upgrade !== "" && !/^h2c?$/i.test(upgrade);
}

function countHosts(raw: RawHeaders): number {
  let count = 0;
  for (let at = 0; at < raw.length; at += 2) if (raw[at]!.length === 4 && raw[at]!.toLowerCase() === "host") count++;
  return count;
}

function refuse(request: IncomingMessage, response: ServerResponse): void {
  const why = "Cannot pass the request on: it names two hosts, or none";
  showTrouble(request, response, troubleOf(new SandboxError("VALIDATION_FAILED", why)));
}
