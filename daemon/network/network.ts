import { unwatchFile, watchFile } from "node:fs";
import { readFile } from "node:fs/promises";
import type { GatewayConnection } from "../../protocol/gateway.ts";
import { run } from "../linux/run.ts";
import { gatewayUid, slotAddress } from "./address.ts";
import { openGateway, type NetworkLog } from "./gateway.ts";
import { applyHostRules, listNetns, openHub, removeHostRules } from "./hub.ts";
import { parseResolvConf } from "./resolv-conf.ts";
import { openSlots, type Slot } from "./slot.ts";

export type { GatewayConnection, NetworkLog, Slot };

export type NetworkOptions = {
  tag: string;
  /** "/run/atoll/<tag>", which everybody may walk through. */
  runDir: string;
  dataDir: string;
  /** The machine's store; the gateway's Node is put there. */
  storeDir: string;
  /** Name to address, private ones allowed. */
  hosts: Record<string, string>;
  log: NetworkLog;
  /** Default: those of /etc/resolv.conf, followed when it changes. "address" or "address:port". */
  resolvers?: string[];
};

/** Which run of which sandbox has a slot. `names` is the sandbox's own id for its table of names, for its whole life. */
export type Lease = { slot: number; run: string; names: string };

/**
 * The sandboxes' network of one daemon: the hub, slots in it, and the gateway. Nothing a sandbox sends goes anywhere but to
 * the gateway, which knows who speaks by the slot's address and refuses whom it does not know.
 * Disposing leaves runs and gateway going, for the next daemon.
 */
export type Network = AsyncDisposable & {
  /** A namespace that no run has had. */
  takeSlot(): Promise<Slot>;
  /** Ends a slot's namespace, after its processes. Detach it before. */
  giveSlot(slot: Slot): Promise<void>;
  /** From now on the slot's address speaks for that run. */
  attach(slot: Slot, lease: Omit<Lease, "slot">): Promise<void>;
  /** Nobody speaks from that address any more; its connections are reset. */
  detach(slot: Slot): Promise<void>;
  /**
   * To be called once, before any slot is attached, with what the daemon's rows say: exactly these runs keep their slot and their connections, every
   * other namespace of this daemon is ended. Gives the slots that are really there, by number.
   */
  recover(leases: readonly Lease[]): Promise<Map<number, Slot>>;
  /** What is open now, of one slot or of all. */
  connections(slot?: Slot): Promise<GatewayConnection[]>;
  /** For a fork or a snapshot: `to` begins with the names of `from`. */
  copyNames(from: string, to: string): Promise<void>;
  /** For a destroyed sandbox. */
  forgetNames(names: string): Promise<void>;
  /** The gateway's process, for the daemon's own accounts. */
  gatewayPid(): Promise<number>;
  /** Ends everything of this daemon: gateway, slots, hub, the host's output chain. */
  end(): Promise<void>;
};

/**
 * Makes the network, or takes over what the daemon before left. Until `recover` is called,
 * everything stays as it was found. Throws NOT_SUPPORTED with the remedy when this host cannot.
 */
export async function openNetwork(options: NetworkOptions): Promise<Network> {
  const { tag, hosts } = options;
  const uid = gatewayUid(tag);
  let resolvers = options.resolvers ?? (await readResolvers());
  const applyRules = () => applyHostRules({ tag, uid, resolvers, hosts: Object.values(hosts) });

  await using undo = new AsyncDisposableStack();
  await openHub(tag);
  await applyRules();
  const gateway = undo.use(await openGateway(options, { resolvers, hosts }));
  const slots = undo.use(await openSlots(tag));

  const follow = async () => {
    const next = await readResolvers();
    if (String(next) === String(resolvers)) return;
    resolvers = next;
    await applyRules();
    await gateway.setState({ resolvers });
  };
  const onChange = () => {
    follow().catch((error: unknown) =>
      options.log("error", { error: String(error) }, "cannot follow /etc/resolv.conf"),
    );
  };
  if (!options.resolvers) {
    watchFile(resolvConf, { interval: 5_000, persistent: false }, onChange);
    undo.defer(() => unwatchFile(resolvConf, onChange));
  }
  const open = undo.move();

  return {
    takeSlot: () => slots.take(),
    giveSlot: (slot) => slots.give(slot),
    attach: (slot, { run, names }) => gateway.attach({ address: slot.address, run, names: requireId(names) }),
    detach: (slot) => gateway.detach(slot.address),
    recover: async (leases) => {
      const there = new Map(slots.inherited().map((slot) => [slot.index, slot]));
      const kept = leases.filter(({ slot }) => there.has(slot));
      await gateway.setState({
        attachments: kept.map(({ slot, run, names }) => ({ address: slotAddress(slot), run, names: requireId(names) })),
      });
      const keep = new Set(kept.map(({ slot }) => slot));
      for (const slot of there.values()) if (!keep.has(slot.index)) await slots.give(slot);
      return new Map(kept.map(({ slot }) => [slot, there.get(slot)!]));
    },
    connections: (slot) => gateway.connections(slot?.address),
    copyNames: (from, to) => gateway.copyNames(requireId(from), requireId(to)),
    forgetNames: (names) => gateway.forgetNames(requireId(names)),
    gatewayPid: () => gateway.pid(),
    end: async () => {
      await gateway.end();
      await open[Symbol.asyncDispose]();
      for (const name of await listNetns()) if (name.startsWith(`a${tag}-`)) await run("ip", ["netns", "del", name]);
      await removeHostRules(tag);
    },
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  };
}

const resolvConf = "/etc/resolv.conf";

async function readResolvers(): Promise<string[]> {
  return parseResolvConf(await readFile(resolvConf, "utf8").catch(() => ""));
}

/** Ids become file names in the gateway's directory. */
function requireId(id: string): string {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) throw new Error(`Cannot use "${id}" as the id of a name table`);
  return id;
}
