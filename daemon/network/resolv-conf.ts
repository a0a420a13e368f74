import { isIP } from "node:net";

/** The resolvers of a resolv.conf(5), at most the three that a C library uses; without any the local machine, as there. */
export function parseResolvConf(text: string): string[] {
  const found = text.split("\n").flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? []);
  const usable = found.filter((address) => isIP(address) !== 0 && !address.includes("%")).slice(0, 3);
  return usable.length > 0 ? usable : ["127.0.0.1"];
}
