import { gatewayAddress, proxyPort } from "./address.ts";

/**
 * The rules of a hub, as input of `nft -f -`: one atomic replacement, the same whatever sandboxes there are.
 * `network.md` of the design has the trial behind each line.
 */
export function hubScript(): string {
  return `table inet atoll
delete table inet atoll
table inet atoll {
  set literals { type ipv4_addr; flags interval; }
  set synrate { typeof iifname; size ${rateSetSize}; flags dynamic,timeout; timeout 10s; }
  set dnsrate { typeof iifname; size ${rateSetSize}; flags dynamic,timeout; timeout 10s; }
  set refusalrate { typeof iifname; size ${rateSetSize}; flags dynamic,timeout; timeout 10s; }
  chain prerouting {
    type filter hook prerouting priority mangle; policy drop;
    iifname != "hx*" drop
    meta nfproto != ipv4 drop
    fib saddr . iif oif missing drop
    tcp flags & (syn | ack) == syn update @synrate { iifname limit rate over 500/second burst 1000 packets } reject with tcp reset
    ip daddr ${gatewayAddress} udp dport 53 update @dnsrate { iifname limit rate over 1000/second burst 1000 packets } drop
    ip daddr ${gatewayAddress} meta l4proto { tcp, udp } th dport 53 accept
    ip daddr 198.19.0.0/16 meta l4proto tcp tproxy ip to ${gatewayAddress}:${proxyPort} accept
    ip daddr @literals meta l4proto tcp tproxy ip to ${gatewayAddress}:${proxyPort} accept
    meta l4proto tcp reject with tcp reset
    update @refusalrate { iifname limit rate over 1000/second burst 1000 packets } drop
    reject with icmp admin-prohibited
  }
}
`;
}

/** One element per slot that spoke in the last 10 s; a set that is full would let the flood pass unlimited. */
const rateSetSize = 65_536;

export type HostRules = {
  tag: string;
  uid: number;
  /** As in /etc/resolv.conf, or with a port: "192.0.2.1", "192.0.2.1:5353", "[2001:db8::1]:5353". */
  resolvers: readonly string[];
  /** Addresses that the owner named in `hosts`. */
  hosts: readonly string[];
};

/**
 * The second line, in the host's own namespace: what the gateway's uid may send, whatever the gateway believes. It is a
 * table of our own, and only packets of that uid ever come to its rules: what has no uid (the kernel's own resets and ICMP)
 * matches neither "skuid U" nor "skuid != U". It needs no connection tracking, because the gateway listens to nothing here.
 */
export function hostScript({ tag, uid, resolvers, hosts }: HostRules): string {
  const table = hostTable(tag);
  const accepts = [
    ...unique(resolvers).map((resolver) => {
      const [, address, port] = /^\[(.*)\]:(\d+)$/.exec(resolver) ??
        /^([\d.]+):(\d+)$/.exec(resolver) ?? [null, resolver, 53];
      return `${daddr(address!)} meta l4proto { tcp, udp } th dport ${port} accept`;
    }),
    ...unique(hosts).map((address) => `${daddr(address)} meta l4proto tcp accept`),
  ];
  return `table inet ${table}
delete table inet ${table}
table inet ${table} {
  chain output {
    type filter hook output priority filter; policy accept;
    meta skuid ${uid} goto gateway
  }
  chain gateway {
${accepts.map((rule) => `    ${rule}\n`).join("")}    fib daddr type { local, broadcast, multicast, anycast } goto near
    ip daddr { ${privateV4.join(", ")} } goto near
    ip6 daddr { ${privateV6.join(", ")} } goto near
  }
  chain near {
    meta l4proto tcp reject with tcp reset
    reject
  }
}
`;
}

export function hostTable(tag: string): string {
  return `atoll_${tag}`;
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)].sort();
}

function daddr(address: string): string {
  return `${address.includes(":") ? "ip6" : "ip"} daddr ${address}`;
}

/** As gateway/range.ts, which tells the reason to the sandbox; this list holds also when that one has a hole. */
const privateV4 = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "168.63.129.16",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "224.0.0.0/3",
];
const privateV6 = ["::/16", "2001::/32", "2002::/16", "fc00::/7", "fe80::/9", "ff00::/8"];
