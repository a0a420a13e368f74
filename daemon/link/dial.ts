import { request } from "node:http";
import type { Socket } from "node:net";
import { unreachable } from "./connect.ts";
import { type Link, readRefusal } from "./link.ts";

/** How long an agent may take to connect; it gives up itself after 5 s. */
const dialLimitMs = 10_000;

/**
 * A connection to a port of the sandbox, also where only its loopback listens: the bytes of what was dialled, with half-close.
 * Throws what the agent refuses, SERVICE_NOT_RESPONDING where nobody listens, or AGENT_UNREACHABLE.
 */
export function dial(link: Link, port: number, signal: AbortSignal): Promise<Socket> {
  return upgrade(link, `/dial?port=${port}`, "atoll-tcp", signal);
}

/** A connection to the agent that has become one of this protocol. */
export function upgrade(link: Link, path: string, protocol: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const outgoing = request({
      createConnection: () => link.connect(),
      path,
      headers: { connection: "Upgrade", upgrade: protocol },
      maxHeaderSize: 8 * 1024,
    });
    const timer = setTimeout(() => outgoing.destroy(unreachable(`no answer in ${dialLimitMs} ms`)), dialLimitMs);
    const onAbort = () => outgoing.destroy(unreachable("the caller has gone"));
    signal.addEventListener("abort", onAbort, { once: true });
    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    };
    outgoing.on("upgrade", (_, socket, head) => {
      settle();
      if (head.length > 0) socket.unshift(head);
      resolve(socket as Socket); // what link.connect gave
    });
    outgoing.on("information", () => outgoing.destroy(unreachable("it announces an answer without giving it")));
    outgoing.on("response", (response) => {
      settle();
      readRefusal(response).then(reject, reject);
    });
    outgoing.on("error", (error) => {
      settle();
      reject(signal.aborted ? (signal.reason as Error) : unreachable(error.message, error));
    });
    outgoing.end();
  });
}
