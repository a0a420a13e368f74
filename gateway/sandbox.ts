import type { Attachment, GatewayConnection, GatewayLine } from "../protocol/gateway.ts";
import { pendingLookupLimit, createRate, type Rate } from "./limit.ts";
import type { NameTable } from "./names.ts";
import { openNames } from "./names.ts";

/** A connection as the table shows it, and the way to end it. */
export type Connection = GatewayConnection & { end(): void };

/** What the gateway knows of one sandbox that runs, and what is counted against it. */
export type GatewaySandbox = {
  attachment: Attachment;
  names: NameTable;
  connections: Set<Connection>;
  dnsConnections: Set<{ end(): void }>;
  /** Questions on them; by UDP the hub counts. */
  dnsQuestions: Rate;
  /** Milliseconds of the gateway's one thread for reading what the sandbox sends. */
  reading: Rate;
  /** Runs a lookup that may have to wait for a resolver. Throws TooMany beyond the sandbox's share. */
  limited<T>(lookup: () => Promise<T>): Promise<T>;
  /** Whether one more line about this sandbox goes to the log. */
  mayLog(): boolean;
};

export class TooMany extends Error {}

export type Log = (level: GatewayLine["level"], message: string, fields?: GatewayLine["fields"]) => void;

/** Reads the sandbox's names; throws when they cannot be read, and then it has no way out. */
export async function openSandbox(attachment: Attachment, namesDirectory: string): Promise<GatewaySandbox> {
  const names = await openNames(namesDirectory, attachment.names);
  // A crawler's pace; enough for any installation, whose names are few and kept.
  const lookups = createRate(200, 1_000);
  const lines = createRate(2, 20);
  let pending = 0;
  return {
    attachment,
    names,
    connections: new Set(),
    dnsConnections: new Set(),
    dnsQuestions: createRate(1_000, 100),
    // A fifth of the thread: bodies cost next to nothing, and heads that are made to be slow keep nobody else waiting.
    reading: createRate(200, 200),
    mayLog: () => lines.take(performance.now()),
    limited: async (lookup) => {
      if (pending >= pendingLookupLimit || !lookups.take(performance.now())) throw new TooMany();
      pending += 1;
      try {
        return await lookup();
      } finally {
        pending -= 1;
      }
    },
  };
}

/** Ends everything that a sandbox has open. */
export function closeSandbox(sandbox: GatewaySandbox): void {
  for (const connection of sandbox.connections) connection.end();
  for (const connection of sandbox.dnsConnections) connection.end();
}
