/** What a sandbox wants to reach. */
export type Wish = {
  /** Lower case, without a final dot. */
  host: string;
  /** Undefined while only its name is asked for. */
  port?: number;
  protocol: "dns" | "tcp";
  /** The machine's owner gave this name an address. */
  named: boolean;
};

export type Decision = { allow: true } | { allow: false; rule: string };

/**
 * The one place where it is decided what a sandbox may reach. The only policy for now: the public internet and what the
 * owner named in `hosts`, nothing else. That a name's *addresses* are public is checked when they are dialled (range.ts).
 */
export function decide(wish: Wish): Decision {
  if (wish.named) return { allow: true };
  if (!isHostName(wish.host)) return { allow: false, rule: "only names of the internet are known here" };
  const local = localSuffixes.find((suffix) => wish.host === suffix || wish.host.endsWith(`.${suffix}`));
  if (local !== undefined) return { allow: false, rule: `names under "${local}" belong to the machine itself` };
  return { allow: true };
}

/** Names that only mean something on one machine or one link (RFC 6761, 6762, 8880): no resolver of the outside knows them. */
const localSuffixes = ["localhost", "local", "localdomain", "ipv4only.arpa", "ip6.arpa", "in-addr.arpa"];

/**
 * At least two labels of letters, digits, hyphens and underscores (service names), 253 characters at most. A letter in the
 * last one tells a name from an IPv4 address, which a resolver would hand back unasked.
 */
function isHostName(host: string): boolean {
  const label = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?";
  return host.length <= 253 && new RegExp(`^(${label}\\.)+(?=[^.]*[a-z])${label}$`).test(host);
}
