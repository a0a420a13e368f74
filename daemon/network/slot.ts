import { inNamespace } from "../linux/namespace.ts";
import { run } from "../linux/run.ts";
import {
  gatewayAddress,
  hubLink,
  hubName,
  netnsPath,
  slotAddress,
  slotCount,
  slotName,
  slotOfName,
} from "./address.ts";
import { listNetns, writeSetting } from "./hub.ts";
import { openIpBatch } from "./ip-batch.ts";

/** A network namespace, veth and address, ready for one run. */
export type Slot = { index: number; name: string; netnsPath: string; address: string };

export type Slots = AsyncDisposable & {
  take(): Promise<Slot>;
  give(slot: Slot): Promise<void>;
  /** The slots of the daemon before that were not given back yet. */
  inherited(): Slot[];
};

/** The slot of this number: everything about it follows from tag and number. */
export function slotAt(tag: string, index: number): Slot {
  const name = slotName(tag, index);
  return { index, name, netnsPath: netnsPath(name), address: slotAddress(index) };
}

/** Opens the slots of a daemon whose hub is there. Some are kept ready; disposing gives those back, and no others. */
export async function openSlots(tag: string): Promise<Slots> {
  const batch = openIpBatch(netnsPath(hubName(tag)));
  const found = (await listNetns()).flatMap((name) => slotOfName(tag, name) ?? []);
  const inherited = new Set(found);
  const used = new Set(found);
  const ready: Slot[] = [];
  let next = used.size === 0 ? 0 : (Math.max(...used) + 1) % slotCount;
  let refilling: Promise<void> | undefined;
  let closed = false;

  const give = async (slot: Slot) => {
    // The namespace takes its veth along, in the background; deleting the link itself would take 36 ms.
    await batch.run([`netns del ${slot.name}`]);
    used.delete(slot.index);
    inherited.delete(slot.index);
  };
  const make = async (): Promise<Slot> => {
    const slot = slotAt(tag, reserve());
    try {
      await makeSlot(slot, (lines) => batch.run(lines));
      return slot;
    } catch (error) {
      // The number stays reserved: what is in its way may still be there.
      await batch.run([`netns del ${slot.name}`]).catch(() => {});
      throw error;
    }
  };
  /** Round robin: a number comes again late, so nothing that remembers its last owner meets the next. */
  const reserve = (): number => {
    for (let tries = 0; tries < slotCount; tries++) {
      const index = next;
      next = (next + 1) % slotCount;
      if (used.has(index)) continue;
      used.add(index);
      return index;
    }
    throw new Error(`Cannot take a slot: all ${slotCount} are in use`);
  };
  const refill = () => {
    refilling ??= (async () => {
      while (!closed && ready.length < readyCount) ready.push(await make());
    })()
      .catch(() => {}) // whoever needs a slot makes one then, and is told
      .finally(() => (refilling = undefined));
  };
  refill();

  return {
    inherited: () => [...inherited].map((index) => slotAt(tag, index)),
    give,
    take: async () => {
      const slot = ready.shift() ?? (await make());
      refill();
      return slot;
    },
    [Symbol.asyncDispose]: async () => {
      closed = true;
      await refilling;
      for (const slot of ready.splice(0)) await give(slot).catch(() => {});
      await batch[Symbol.asyncDispose]();
    },
  };
}

/** Enough for the starts of one moment; each costs the kernel 0.3 MB. */
const readyCount = 4;

async function makeSlot(slot: Slot, ip: (lines: string[]) => Promise<void>): Promise<void> {
  const link = hubLink(slot.index);
  // The same address at both ends and no ARP: there is nothing to ask for, and nothing that could be answered falsely.
  const mac = "02:00:00:00:00:01";
  await ip([
    `netns add ${slot.name}`,
    `link add ${link} address ${mac} type veth peer name eth0 address ${mac} netns ${slot.name}`,
    `link set ${link} arp off up`,
    `route add ${slot.address}/32 dev ${link}`,
  ]);
  const inside = [
    "link set lo up",
    `addr add ${slot.address}/32 dev eth0`,
    "link set eth0 arp off up",
    // By way of the gateway: with a route to the link alone every destination would be an entry in the host's ARP table.
    `route add default via ${gatewayAddress} dev eth0 onlink`,
  ];
  await inNamespace("net", slot.netnsPath, () => {
    for (const [key, value] of slotSettings) writeSetting(key, value);
    return run("ip", ["-batch", "-"], { stdin: `${inside.join("\n")}\n` });
  });
}

/** The namespace is the host's, so root inside could bind no low port and not ping its own loopback. ::1 stays on lo. */
const slotSettings = [
  ["ipv6/conf/eth0/disable_ipv6", "1"],
  ["ipv4/ip_unprivileged_port_start", "0"],
  ["ipv4/ping_group_range", "0 2147483647"],
] as const;
