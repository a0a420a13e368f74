import { readFileSync } from "node:fs";
import type { GatewayState } from "../protocol/gateway.ts";
import { serveControl } from "./control.ts";
import { serveDns } from "./dns-server.ts";
import { serveProxy } from "./proxy.ts";
import { createResolver, type Resolver } from "./resolver.ts";

/**
 * The gateway's process: the only way out of every sandbox of one daemon. It is started by daemon/network/gateway.ts
 * without privileges, with its listening sockets as descriptors, and does nothing before the daemon has told it who is who.
 */
function main(): void {
  const [version, ...numbers] = process.argv.slice(2);
  const [control, proxy, dnsUdp, dnsTcp, names] = numbers.map(Number);
  let state: GatewayState | undefined;
  let resolver: Resolver = createResolver([], {});

  const { sandboxes, log } = serveControl({
    fd: control!,
    // By descriptor: the data directory may lie where this uid cannot walk.
    namesDirectory: `/proc/self/fd/${names}`,
    version: version!,
    onState: (next) => {
      const first = state === undefined;
      if (!state || !sameSettings(state, next)) resolver = createResolver(next.resolvers, next.hosts);
      state = next;
      if (first) serve();
    },
  });
  const serve = () => {
    const world = {
      sandboxAt: (address: string) => sandboxes.get(address),
      sandboxCount: () => sandboxes.size,
      resolver: () => resolver,
      log,
      capacity: connectionCapacity(),
    };
    serveDns(dnsUdp!, dnsTcp!, world);
    serveProxy(proxy!, world);
    log("info", "gateway serves", { pid: process.pid, capacity: world.capacity });
  };
}

function sameSettings(one: GatewayState, other: GatewayState): boolean {
  const text = ({ resolvers, hosts }: GatewayState) => JSON.stringify([resolvers, hosts]);
  return text(one) === text(other);
}

/** Two descriptors a connection, and some kept back for DNS, files and the daemon. */
function connectionCapacity(): number {
  const line = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  return Math.floor((Number(line?.[1] ?? 1024) - 512) / 2);
}

main();
