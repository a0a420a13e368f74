import { BlockList, isIP } from "node:net";

/**
 * Why an address must not be dialled for a sandbox, in words ("a private address"), or undefined when it is one of the
 * public internet. `own` are the host's addresses. IPv6 forms that carry an IPv4 address are judged by it as well.
 */
export function forbiddenRange(address: string, own: ReadonlySet<string>): string | undefined {
  if (own.has(address)) return "an address of this machine";
  switch (isIP(address)) {
    case 4:
      return v4Ranges.find(({ list }) => list.check(address, "ipv4"))?.name;
    case 6:
      return forbiddenV6(address, own);
    default:
      return "no IP address";
  }
}

function forbiddenV6(address: string, own: ReadonlySet<string>): string | undefined {
  const groups = parseV6(address);
  if (!groups) return "no IP address";
  const carried = carriedV4(groups);
  if (carried === undefined) {
    // Only 2000::/3 is given out as global unicast: what is new or unknown stays closed.
    if (groups[0]! >> 13 !== 1) return "no public IPv6 address";
    return groups[0] === 0x2001 && groups[1] === 0 ? "a Teredo address" : undefined;
  }
  const why = forbiddenRange(carried, own);
  return why && `${why} in IPv6 form`;
}

/** The IPv4 address in ::ffff:a.b.c.d, ::a.b.c.d, NAT64's 64:ff9b::/96 and 6to4's 2002::/16. */
function carriedV4(groups: number[]): string | undefined {
  const [first, second] = groups;
  if (first === 0x2002) return dotted(groups[1]!, groups[2]!);
  const middle = groups.slice(2, 6);
  const mapped = first === 0 && second === 0 && middle.slice(0, 3).every((group) => group === 0);
  const nat64 = first === 0x64 && second === 0xff9b && middle.every((group) => group === 0);
  if (nat64 || (mapped && (middle[3] === 0 || middle[3] === 0xffff))) return dotted(groups[6]!, groups[7]!);
  return undefined;
}

function dotted(high: number, low: number): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}

/** The eight groups of a valid address; a zone ("%eth0") makes it none. */
function parseV6(address: string): number[] | undefined {
  if (address.includes("%")) return undefined;
  const text = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => {
    const hex = (high: string, low: string) => ((Number(high) << 8) | Number(low)).toString(16);
    return `${hex(a, b)}:${hex(c, d)}`;
  });
  const [head = "", tail] = text.split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16)));
  if (tail === undefined) return groups(head);
  const before = groups(head);
  const after = groups(tail);
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

/** Documentation ranges are not here: behind some company networks they are how the outside is reached. */
const v4Ranges = [
  { name: "no address of a host", nets: ["0.0.0.0/8"] },
  { name: "a loopback address", nets: ["127.0.0.0/8"] },
  { name: "a private address", nets: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] },
  { name: "an address of a carrier's own network", nets: ["100.64.0.0/10"] },
  { name: "a link-local or metadata address", nets: ["169.254.0.0/16", "168.63.129.16/32"] },
  { name: "an address of the sandboxes' network", nets: ["198.18.0.0/15"] },
  { name: "a reserved address", nets: ["192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4"] },
  { name: "a multicast address", nets: ["224.0.0.0/4"] },
].map(({ name, nets }) => {
  const list = new BlockList();
  for (const net of nets) {
    const [address, bits] = net.split("/");
    list.addSubnet(address!, Number(bits), "ipv4");
  }
  return { name, list };
});
