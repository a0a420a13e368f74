import { globalAgent, request as requestHttp } from "node:http";
import { globalAgent as globalAgentHttps, request as requestHttps } from "node:https";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { SandboxError } from "../../protocol/errors.ts";
import type { Send } from "../../sdk/send.ts";
import { headersOf } from "./request.ts";
import { switching, Upstream } from "./switching.ts";

/**
 * What apps pass requests on with, beside Node's fetch, which opens no WebSockets, unpacks what was packed, and keeps a streamed
 * body in memory.
 */
export const send: Send = (url, { method = "GET", headers, body, signal }) =>
  new Promise((resolve, reject) => {
    const isSecure = url.startsWith("https:");
    const wanted = new Headers(headers);
    const upgrades = wanted.has("upgrade");
    if (upgrades) wanted.set("connection", "Upgrade");
    // A request that must not be sent twice has a connection of its own: an idle one may be closed just when it is used.
    const isSafe = !upgrades && !body && (method === "GET" || method === "HEAD");
    const outgoing = (isSecure ? requestHttps : requestHttp)(url, {
      ...{ method, headers: Object.fromEntries(wanted), allowHalfOpen: true },
      agent: isSafe ? (isSecure ? globalAgentHttps : globalAgent) : false,
      ...(signal && { signal }),
    });
    outgoing.on("error", reject);
    outgoing.on("upgrade", ({ rawHeaders }, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve(switching(new Upstream(socket, rawHeaders, signal), headersOf(rawHeaders)));
    });
    outgoing.on("response", (incoming) => {
      const { statusCode: status = 502, statusMessage: statusText = "", rawHeaders } = incoming;
      const hasBody = ![204, 205, 304].includes(status);
      if (!hasBody) incoming.resume();
      // what Node's Response refuses would be thrown where nobody catches it
      if (status < 200 || status > 599) {
        outgoing.destroy();
        return reject(strange(`its status is ${status}`));
      }
      const stream = hasBody ? (Readable.toWeb(incoming) as ReadableStream<Uint8Array>) : null;
      resolve(new Response(stream, { status, statusText, headers: headersOf(rawHeaders) }));
    });
    if (!(body instanceof ReadableStream)) return void outgoing.end();
    // what fails is told by the request, or is no matter when there is an answer already
    pipeline(Readable.fromWeb(body as NodeReadableStream), outgoing).catch(reject);
  });

function strange(why: string): SandboxError {
  return new SandboxError("SERVICE_NOT_RESPONDING", `Cannot pass on what the server in the sandbox says: ${why}`, {
    suggestion: "Look at the server's own log",
  });
}
