import { z } from "zod";

/**
 * What the daemon and its gateway say to each other, HTTP/1.1 on a unix socket that only root can reach. The gateway reads
 * hostile bytes, so the daemon parses whatever it answers.
 *
 *   GET    /hello                 GatewayHello
 *   GET    /events                GatewayLine a line, for as long as the gateway lives; its end is the gateway's end
 *   PUT    /state                 GatewayState -> {}: replaces everything; connections of attachments that stay as they were go on.
 *                                 Before the first one the gateway takes nothing from its sockets
 *   PUT    /attachments/ADDRESS   Attachment -> {}
 *   DELETE /attachments/ADDRESS   -> {}: ends its connections
 *   GET    /connections?address=  { connections: GatewayConnection[] }
 *   DELETE /names/ID              forgets a name table
 *   POST   /names/ID?from=ID      copies a name table, complete as of now
 */
export const gatewayVersion = 1;

export const GatewayHello = z.object({ gateway: z.number().int(), pid: z.number().int(), version: z.string() });
export type GatewayHello = z.infer<typeof GatewayHello>;

/** Who speaks from an address. */
export const Attachment = z.object({
  /** The source address, proved by the hub. */
  address: z.string(),
  run: z.string(),
  /** Which table of names, in the life of the sandbox: the addresses its DNS gave. */
  names: z.string(),
});
export type Attachment = z.infer<typeof Attachment>;

export const GatewayState = z.object({
  /** The resolvers that real addresses are asked of: "address" or "address:port". */
  resolvers: z.array(z.string()),
  /** Names whose address the machine's owner gave. They may be private. */
  hosts: z.record(z.string(), z.string()),
  /** Absent: as they are. */
  attachments: z.array(Attachment).optional(),
});
export type GatewayState = z.infer<typeof GatewayState>;

export const GatewayConnection = z.object({
  run: z.string(),
  host: z.string(),
  port: z.number().int(),
  openedAtMs: z.number(),
  /** From the sandbox. */
  bytesUp: z.number(),
  /** To the sandbox. */
  bytesDown: z.number(),
  state: z.enum(["dialling", "open", "closing", "refused"]),
});
export type GatewayConnection = z.infer<typeof GatewayConnection>;

export const GatewayLine = z.object({
  level: z.enum(["debug", "info", "warn", "error"]),
  message: z.string(),
  fields: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
});
export type GatewayLine = z.infer<typeof GatewayLine>;
