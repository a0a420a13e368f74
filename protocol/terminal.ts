import { z } from "zod";
import { SandboxPath, ShortId, UserName } from "./names.ts";
import { EnvVars } from "./options.ts";

/** Terminals of a sandbox: real ones, each with a shell or program of its own, which any number of viewers share. */

/** Shorter than ids of processes, which a terminal's begins with a word of ours. */
export const TerminalId = ShortId.max(56);

const Cells = z.coerce.number().int().min(1).max(1_000);

/** A terminal that runs is told, whatever else is asked for; one that has ended is begun anew. */
export const CreateTerminal = z
  .strictObject({
    id: TerminalId,
    cols: Cells.default(80),
    rows: Cells.default(24),
    /** A program and its arguments. Default: bash, or sh in an image without it. */
    argv: z
      .array(z.string().refine((text) => !text.includes("\0"), "an argument cannot contain NUL"))
      .min(1)
      .optional(),
    /** The session in whose directory it starts. */
    session: ShortId.default("default"),
    cwd: SandboxPath.optional(),
    env: EnvVars.optional(),
    user: UserName.optional(),
  })
  .refine((request) => request.argv?.[0] !== "", {
    message: "the program's name is empty",
    params: { code: "INVALID_COMMAND" },
  });
export type CreateTerminal = z.infer<typeof CreateTerminal>;

export const TerminalInfo = z.object({
  id: z.string(),
  /** Tells this terminal from others that had or will have its id. */
  life: z.string(),
  pid: z.number().int(),
  command: z.string(),
  startTime: z.number(),
  /** Bytes of output so far. */
  offset: z.number().int(),
  /** Set when its program has ended. */
  exitCode: z.number().int().optional(),
  signal: z.string().optional(),
});
export type TerminalInfo = z.infer<typeof TerminalInfo>;

/** Where a viewer's WebSocket is opened; not a verb, because its answer is no HTTP. */
export const terminalSocketPath = "/v1/sandboxes/:sandbox/terminals/:terminal/socket";

/** Query of a viewer's WebSocket. Browsers, which can send no header, have a ticket; a token in a URL is refused. */
export const TerminalQuery = z.strictObject({
  /** The viewer's size, which becomes the terminal's. A new one has 80 columns and 24 rows where nobody says. */
  cols: Cells.optional(),
  rows: Cells.optional(),
  /** What is run when the terminal is not there, or has ended. */
  shell: z.string().min(1).max(4_096).optional(),
  session: ShortId.default("default"),
  /** "false": only a terminal that is there. */
  start: z.enum(["true", "false"]).default("true"),
  /** "true": `replay` messages tell which byte comes next. */
  offsets: z.enum(["true", "false"]).default("false"),
  /** What the viewer has seen already: the terminal's life and the bytes of its output. */
  life: z.string().max(64).optional(),
  after: z.coerce.number().int().min(0).optional(),
  ticket: z.string().max(128).optional(),
});
export type TerminalQuery = z.infer<typeof TerminalQuery>;

/** Text from a viewer; binary is what was typed. */
export const ViewerMessage = z.object({ type: z.literal("resize"), cols: Cells, rows: Cells });

/**
 * Text to a viewer; binary is output. First the replay, the last 256 KiB of output at most, then `ready`, then what comes.
 * `exit` or `error` is the last.
 */
export type TerminalMessage =
  /** Only where it was asked for: the next output begins at this byte. Where that is not the one expected, the screen is old. */
  | { type: "replay"; life: string; offset: number }
  | { type: "ready" }
  | { type: "exit"; code: number; signal?: string }
  | { type: "error"; message: string; code?: string };

/** A ticket opens one WebSocket, once. */
export const TicketBody = z.strictObject({
  /** Only for this terminal. */
  terminal: TerminalId.optional(),
  /** Only for pages of this origin, such as "https://app.example.com". */
  origin: z.string().max(512).optional(),
});
export const Ticket = z.object({ ticket: z.string(), expiresAt: z.number() });
