import { z } from "zod";
import { ErrorBody } from "./errors.ts";

/**
 * The part of the link for live work: watches, listening ports, raw connections, terminals.
 *
 *   POST   /watches                        WatchRequest -> WatchLine a line each, `ready` first, a heartbeat every 15 s
 *   POST   /changes                        ChangesRequest -> ChangesAnswer
 *   GET    /ports                          { ports: ListeningPort[] }: the kernel's table of listening TCP sockets
 *   GET    /dial?port=N                    Upgrade: atoll-tcp -> 101, then the bytes of a connection to 127.0.0.1, else ::1,
 *                                          else the address that is listened on. SERVICE_NOT_RESPONDING names what listens
 *   GET    /processes/ID/attach?after=     Upgrade: atoll-terminal -> 101, then frames both ways (frame.ts): the log from
 *                                          `after` on; to the agent input bytes and TerminalSize. Who closes its half leaves
 *   POST   /processes/ID/resize            TerminalSize -> {}
 */

/**
 * Which paths a watch tells: globs of a path's last part ("*.ts"), or of the whole relative path where it has a slash;
 * with `*`, `?`, `[a-z]`, `{a,b}` and `**`. What is excluded is not even watched. Whatever is included, it is told when a
 * directory is moved: what lies in it was moved with it.
 */
const WatchedPaths = {
  path: z.string(),
  session: z.string().optional(),
  recursive: z.boolean(),
  include: z.array(z.string()).optional(),
  exclude: z.array(z.string()).optional(),
};

export const WatchRequest = z.object({
  ...WatchedPaths,
  /**
   * The first change of a kind to a file is told at once; what else happens to this file within this time is told at its
   * end, each kind once, in the order in which each happened last. What happens to directories is not joined.
   */
  joinMs: z.number().int().min(0).max(10_000),
});
export type WatchRequest = z.infer<typeof WatchRequest>;

export const WatchEvent = z.object({
  eventType: z.enum(["create", "modify", "delete", "move_from", "move_to", "attrib"]),
  /** Absolute. */
  path: z.string(),
  isDirectory: z.boolean(),
  /**
   * Of a directory's `move_to`: where it was before, when that is watched too; all that lies in it was moved with it. Where
   * it came from elsewhere this is absent, and what lies in it is told by `create`.
   */
  movedFrom: z.string().optional(),
  atMs: z.number(),
});
export type WatchEvent = z.infer<typeof WatchEvent>;

export const WatchLine = z.union([
  /** The watches are set: what happens from now on is told. */
  z.object({ ready: z.object({ path: z.string() }) }),
  z.object({ event: WatchEvent }),
  /** Events were lost (the kernel's queue or our own was full): look at the tree again. */
  z.object({ overflow: z.object({ atMs: z.number() }) }),
  z.object({ heartbeat: z.object({}) }),
  /** The watched directory is gone. Last. */
  z.object({ stopped: z.object({ reason: z.string() }) }),
  z.object({ error: ErrorBody }),
]);
export type WatchLine = z.infer<typeof WatchLine>;

export const ChangesRequest = z.object({ ...WatchedPaths, since: z.string().optional() });
export type ChangesRequest = z.infer<typeof ChangesRequest>;

/**
 * `resync`: it cannot be told what happened since then (the agent is another, events were lost, or nobody asked for long).
 * Without `since` it is `unchanged`, with the first version.
 */
export const ChangesAnswer = z.object({ status: z.enum(["unchanged", "changed", "resync"]), version: z.string() });
export type ChangesAnswer = z.infer<typeof ChangesAnswer>;

export const ListeningPort = z.object({
  port: z.number().int(),
  /** "127.0.0.1", "0.0.0.0", "::", "::1" or another address of the sandbox. */
  address: z.string(),
  pid: z.number().int().optional(),
  /** The name of the program that listens. */
  program: z.string().optional(),
});
export type ListeningPort = z.infer<typeof ListeningPort>;

export const TerminalSize = z.object({
  cols: z.number().int().min(1).max(1_000),
  rows: z.number().int().min(1).max(1_000),
});
export type TerminalSize = z.infer<typeof TerminalSize>;
