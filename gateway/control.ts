import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { gatewayVersion, type Attachment, type GatewayHello, type GatewayLine } from "../protocol/gateway.ts";
import type { GatewayState } from "../protocol/gateway.ts";
import { copyNames, forgetNames } from "./names.ts";
import { closeSandbox, openSandbox, type GatewaySandbox, type Log } from "./sandbox.ts";

export type Control = {
  sandboxes: ReadonlyMap<string, GatewaySandbox>;
  log: Log;
};

export type ControlOptions = {
  /** Of a listening unix socket that only root can reach. */
  fd: number;
  namesDirectory: string;
  version: string;
  /** A new state has come: resolvers and hosts to use from now on. */
  onState(state: GatewayState): void;
};

/** Serves the daemon: who speaks from which address, what is open, what there is to log. protocol/gateway.ts has the routes. */
export function serveControl({ fd, namesDirectory, version, onState }: ControlOptions): Control {
  const sandboxes = new Map<string, GatewaySandbox>();
  const lines = createLines();

  const detach = (address: string) => {
    const sandbox = sandboxes.get(address);
    if (!sandbox) return;
    sandboxes.delete(address);
    closeSandbox(sandbox);
  };
  const attach = async (attachment: Attachment) => {
    const there = sandboxes.get(attachment.address)?.attachment;
    if (there && there.run === attachment.run && there.names === attachment.names) return;
    detach(attachment.address);
    const sandbox = await openSandbox(attachment, namesDirectory);
    detach(attachment.address);
    sandboxes.set(attachment.address, sandbox);
  };
  const replace = async (state: GatewayState) => {
    const attachments = state.attachments ?? [...sandboxes.values()].map(({ attachment }) => attachment);
    const addresses = new Set(attachments.map(({ address }) => address));
    for (const address of [...sandboxes.keys()]) if (!addresses.has(address)) detach(address);
    // One sandbox whose names cannot be read has no way out; the others are not to suffer for it.
    const unreadable = (error: Error) => lines.log("error", error.message);
    await Promise.all(attachments.map((attachment) => attach(attachment).catch(unreadable)));
    onState(state);
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<unknown> => {
    const url = new URL(request.url ?? "/", "http://gateway");
    const [, noun, id = ""] = url.pathname.split("/");
    switch (`${request.method} /${noun}`) {
      case "GET /hello":
        return { gateway: gatewayVersion, pid: process.pid, version } satisfies GatewayHello;
      case "GET /events":
        return lines.stream(response);
      case "PUT /state":
        return await replace(await readJson<GatewayState>(request));
      case "PUT /attachments":
        return await attach(await readJson<Attachment>(request));
      case "DELETE /attachments":
        return detach(id);
      case "GET /connections":
        return { connections: listConnections(sandboxes, url.searchParams.get("address")) };
      case "DELETE /names":
        return await forgetNames(namesDirectory, id);
      case "POST /names":
        return await copyNames(namesDirectory, url.searchParams.get("from") ?? "", id);
      default:
        throw new Error(`Cannot serve ${request.method} ${url.pathname}: there is no such route`);
    }
  };
  const server = createServer((request, response) => {
    answer(request, response).then(
      (body) => response.headersSent || response.end(JSON.stringify(body ?? {})),
      (error: Error) => response.writeHead(500).end(JSON.stringify({ message: error.message })),
    );
  });
  server.listen({ fd });
  return { sandboxes, log: lines.log };
}

function listConnections(sandboxes: ReadonlyMap<string, GatewaySandbox>, address: string | null) {
  const chosen = address === null ? [...sandboxes.values()] : [sandboxes.get(address)].filter((found) => !!found);
  return chosen.flatMap(({ connections }) => [...connections].map(({ end: _, ...shown }) => shown));
}

/** The daemon is root and trusted; it writes what protocol/gateway.ts says. */
async function readJson<T>(request: IncomingMessage): Promise<T> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString("utf8")) as T;
}

/** Log lines on their way to the daemon; while none listens the last ones wait for the next. */
function createLines(): { log: Log; stream(response: ServerResponse): void } {
  let waiting: string[] = [];
  let reader: ServerResponse | undefined;
  return {
    log: (level, message, fields = {}) => {
      const line = `${JSON.stringify({ level, message, fields } satisfies GatewayLine)}\n`;
      // A daemon that does not read loses lines rather than fill our memory.
      if (reader && reader.writableLength < readerLimitBytes) reader.write(line);
      else if (!reader) waiting = [...waiting.slice(1 - waitingLimit), line];
    },
    stream: (response) => {
      reader?.end();
      reader = response;
      response.on("close", () => {
        if (reader === response) reader = undefined;
      });
      response.writeHead(200, { "content-type": "application/x-ndjson" });
      response.flushHeaders();
      for (const line of waiting) response.write(line);
      waiting = [];
    },
  };
}

const readerLimitBytes = 1024 * 1024;
/** What one restart of the daemon may miss. */
const waitingLimit = 200;
