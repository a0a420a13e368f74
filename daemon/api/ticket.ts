import { randomBytes } from "node:crypto";
import { SandboxError } from "../../protocol/errors.ts";
import type { ServeTable } from "../sandbox/call.ts";

/** Long enough for a page to load on a slow line, too short to be found in a log. */
const lifeMs = 60_000;

/** A megabyte or so; nobody opens as many terminals within a minute. */
const ticketLimit = 10_000;

type Admission = { sandbox: string; terminal: string | undefined; origin: string | undefined; expiresAt: number };

/** What opens a terminal's WebSocket once, where no header can be sent: browsers. They end with the daemon. */
export class Tickets {
  readonly #open = new Map<string, Admission>();

  give(admission: Omit<Admission, "expiresAt">, now = Date.now()): { ticket: string; expiresAt: number } {
    // in the order in which they expire
    for (const [ticket, { expiresAt }] of this.#open) {
      if (expiresAt > now) break;
      this.#open.delete(ticket);
    }
    if (this.#open.size >= ticketLimit) {
      throw new SandboxError("LIMIT_REACHED", `Cannot give a ticket: ${ticketLimit} are open and unused`);
    }
    const ticket = randomBytes(32).toString("base64url");
    const expiresAt = now + lifeMs;
    this.#open.set(ticket, { ...admission, expiresAt });
    return { ticket, expiresAt };
  }

  /** Takes the ticket, whatever comes of it. Throws UNAUTHORIZED unless it opens this terminal for a page of this origin. */
  take(
    ticket: string,
    { sandbox, terminal, origin }: { sandbox: string; terminal: string; origin: string | undefined },
    now = Date.now(),
  ): void {
    const admission = this.#open.get(ticket);
    this.#open.delete(ticket);
    const why = !admission
      ? "the ticket is wrong, or was used already"
      : admission.expiresAt <= now
        ? "the ticket is older than 60 s"
        : admission.sandbox !== sandbox || (admission.terminal ?? terminal) !== terminal
          ? "the ticket is for another terminal"
          : (admission.origin ?? origin) !== origin
            ? "the ticket is for pages of another origin"
            : undefined;
    if (why === undefined) return;
    throw new SandboxError("UNAUTHORIZED", `Cannot open the terminal: ${why}`, {
      suggestion: "Ask for a new ticket, just before each connection",
    });
  }
}

export function ticketVerbs(tickets: Tickets): ServeTable<"createTicket"> {
  return {
    async createTicket(_, { params: { sandbox }, body: { terminal, origin } }) {
      return tickets.give({ sandbox, terminal, origin });
    },
  };
}
