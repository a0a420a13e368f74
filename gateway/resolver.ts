import type { Answer } from "dns-packet";
import { Resolver as Client } from "node:dns/promises";
import { isIP } from "node:net";

/** What a name really is, outside. */
export type Lookup =
  | { kind: "addresses"; addresses: string[] }
  /** The name exists, without an address. */
  | { kind: "empty" }
  | { kind: "missing" }
  | { kind: "failed"; why: string };

export type Records = { kind: "records"; records: Answer[] } | Exclude<Lookup, { kind: "addresses" }>;

export type Resolver = {
  /** Whether the machine's owner gave this name its address. */
  isNamed(host: string): boolean;
  /** IPv4 addresses, or IPv6 ones where there are no others. Kept for as long as the answer allows, at most a minute. */
  lookup(host: string): Promise<Lookup>;
  /** Whether `lookup` would answer at once. */
  isKnown(host: string): boolean;
  records(host: string, type: ForwardedType): Promise<Records>;
};

/** Types that programs need beside addresses. HTTPS and SVCB are not among them: they carry addresses and hide names. */
export const forwardedTypes = ["CAA", "CNAME", "MX", "NAPTR", "NS", "SOA", "SRV", "TXT"] as const;
export type ForwardedType = (typeof forwardedTypes)[number];

/** Seconds for which a sandbox may keep what comes without a lifetime of its own. */
export const defaultTtl = 60;

/** A resolver that asks `servers` ("address" or "address:port") and knows `hosts` (lower-case name to address) by itself. */
export function createResolver(servers: readonly string[], hosts: Readonly<Record<string, string>>): Resolver {
  // Three tries of growing length from 2 s: about as long as the C library of a sandbox waits before it asks again.
  const client = new Client({ timeout: 2_000, tries: 3 });
  client.setServers(servers);
  const named = new Map(Object.entries(hosts));
  const kept = new Map<string, { lookup: Lookup; until: number }>();
  const asked = new Map<string, Promise<Lookup>>();

  const recall = (host: string): Lookup | undefined => {
    const entry = kept.get(host);
    if (entry && entry.until > performance.now()) return entry.lookup;
    kept.delete(host);
    return undefined;
  };
  const ask = async (host: string): Promise<Lookup> => {
    const { lookup, seconds } = await askAddresses(client, host);
    // The oldest goes: a flood of names costs others a repeated question, no more.
    if (kept.size >= keptLimit) kept.delete(kept.keys().next().value!);
    kept.set(host, { lookup, until: performance.now() + seconds * 1000 });
    return lookup;
  };

  return {
    isNamed: (host) => named.has(host),
    isKnown: (host) => named.has(host) || recall(host) !== undefined,
    lookup: (host) => {
      const address = named.get(host);
      if (address !== undefined) return Promise.resolve({ kind: "addresses", addresses: [address] });
      const known = recall(host);
      if (known) return Promise.resolve(known);
      const promise = asked.get(host) ?? ask(host).finally(() => asked.delete(host));
      asked.set(host, promise);
      return promise;
    },
    records: async (host, type) => {
      if (named.has(host)) return { kind: "empty" };
      try {
        return { kind: "records", records: await askRecords(client, host, type) };
      } catch (error) {
        return meaning(error);
      }
    },
  };
}

/** Names whose addresses are kept, of all sandboxes together: 1 MB. */
const keptLimit = 4_096;

async function askAddresses(client: Client, host: string): Promise<{ lookup: Lookup; seconds: number }> {
  let last: Exclude<Lookup, { kind: "addresses" }> = { kind: "empty" };
  for (const family of [4, 6] as const) {
    try {
      const found = await (family === 4 ? client.resolve4(host, { ttl: true }) : client.resolve6(host, { ttl: true }));
      const usable = found.filter(({ address }) => isIP(address) === family).slice(0, addressLimit);
      if (usable.length === 0) continue;
      const seconds = Math.min(defaultTtl, ...usable.map(({ ttl }) => ttl));
      return { lookup: { kind: "addresses", addresses: usable.map(({ address }) => address) }, seconds };
    } catch (error) {
      last = meaning(error);
      if (last.kind !== "empty") break;
    }
  }
  return { lookup: last, seconds: last.kind === "failed" ? 1 : negativeSeconds };
}

/** Long enough for the repetitions of one program, short enough for a name that has just been made. */
const negativeSeconds = 5;

/** More addresses than this are not tried when dialling. */
const addressLimit = 8;

async function askRecords(client: Client, name: string, type: ForwardedType): Promise<Answer[]> {
  const common = { name, ttl: defaultTtl, class: "IN" as const };
  switch (type) {
    case "CAA":
      return (await client.resolveCaa(name)).flatMap(({ critical, ...rest }) =>
        Object.entries(rest)
          .filter(([tag]) => ["issue", "issuewild", "iodef"].includes(tag))
          .map(([tag, value]) => ({
            ...common,
            type,
            data: { flags: critical, tag: tag as "issue", value: String(value) },
          })),
      );
    case "CNAME":
      return (await client.resolveCname(name)).map((data) => ({ ...common, type, data }));
    case "MX":
      return (await client.resolveMx(name)).map(({ priority, exchange }) => ({
        ...common,
        type,
        data: { preference: priority, exchange },
      }));
    case "NAPTR":
      return (await client.resolveNaptr(name)).map(({ service, regexp, ...data }) => ({
        ...common,
        type,
        data: { ...data, services: service, regexp },
      }));
    case "NS":
      return (await client.resolveNs(name)).map((data) => ({ ...common, type, data }));
    case "SOA": {
      const { nsname, hostmaster, minttl, ...data } = await client.resolveSoa(name);
      return [{ ...common, type, data: { ...data, mname: nsname, rname: hostmaster, minimum: minttl } }];
    }
    case "SRV":
      return (await client.resolveSrv(name)).map(({ name: target, ...data }) => ({
        ...common,
        type,
        data: { ...data, target },
      }));
    case "TXT":
      return (await client.resolveTxt(name)).map((data) => ({ ...common, type, data }));
  }
}

function meaning(error: unknown): Exclude<Lookup, { kind: "addresses" }> {
  const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
  if (code === "ENOTFOUND") return { kind: "missing" };
  if (code === "ENODATA") return { kind: "empty" };
  return { kind: "failed", why: code };
}
