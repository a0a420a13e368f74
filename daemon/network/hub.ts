import { writeFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { SandboxError } from "../../protocol/errors.ts";
import { inNamespace } from "../linux/namespace.ts";
import { HostProgramError, run } from "../linux/run.ts";
import { gatewayAddress, hubName, netnsPath } from "./address.ts";
import { hostScript, hostTable, hubScript, type HostRules } from "./nft.ts";

/**
 * Makes the daemon's hub, or puts the one that is there right; runs that use it are not disturbed. The hub is a network
 * namespace without an uplink, where one end of every sandbox's veth lies. Throws NOT_SUPPORTED when the host cannot.
 */
export async function openHub(tag: string): Promise<void> {
  const name = hubName(tag);
  if (!(await isMounted(name))) {
    await run("ip", ["netns", "del", name]).catch(() => {}); // a name without a namespace, left by a crash
    await run("ip", ["netns", "add", name]);
  }
  inNamespace("net", netnsPath(name), () => {
    for (const [key, value] of hubSettings) writeSetting(key, value);
  });
  const script = [
    "link set lo up",
    `addr replace ${gatewayAddress}/32 dev lo`,
    // In table main the slots' own routes win by their prefix; everything else is "local", for TPROXY.
    "route replace local default dev lo table main",
  ].join("\n");
  await run("ip", ["-n", name, "-batch", "-"], { stdin: `${script}\n` });
  await applyRules(["netns", "exec", name, "nft", "-f", "-"], hubScript());
}

/** Puts the output chain for the gateway's uid into the host's own namespace, in a table of ours. */
export async function applyHostRules(rules: HostRules): Promise<void> {
  await applyRules(undefined, hostScript(rules));
}

export async function removeHostRules(tag: string): Promise<void> {
  const table = hostTable(tag);
  await run("nft", ["-f", "-"], { stdin: `table inet ${table}\ndelete table inet ${table}\n` });
}

/** The names of all network namespaces of this machine. */
export async function listNetns(): Promise<string[]> {
  return await readdir("/run/netns").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
}

/** Sets a value of /proc/sys/net for this thread's namespace; one that this kernel does not have needs no setting. */
export function writeSetting(key: string, value: string): void {
  try {
    writeFileSync(`/proc/sys/net/${key}`, value);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/** A new namespace has the host's values, so each is set. */
const hubSettings = [
  ["ipv4/ip_forward", "0"],
  ["ipv6/conf/all/disable_ipv6", "1"],
  ["ipv6/conf/default/disable_ipv6", "1"],
  ["ipv4/conf/all/rp_filter", "1"],
  ["ipv4/conf/default/rp_filter", "1"],
  ["ipv4/conf/all/arp_ignore", "1"],
  ["ipv4/conf/all/accept_source_route", "0"],
  ["ipv4/conf/all/route_localnet", "0"],
  // The kernel's limits would leave a program that meets several refusals at once in silence. The rules have one of their own.
  ["ipv4/icmp_ratemask", "0"],
] as const;

async function isMounted(name: string): Promise<boolean> {
  return (await readFile("/proc/self/mountinfo", "utf8")).includes(` ${netnsPath(name)} `);
}

async function applyRules(netns: string[] | undefined, script: string): Promise<void> {
  try {
    await (netns ? run("ip", netns, { stdin: script }) : run("nft", ["-f", "-"], { stdin: script }));
  } catch (error) {
    if (!(error instanceof HostProgramError)) throw error;
    throw new SandboxError("NOT_SUPPORTED", `Cannot close the sandboxes' network: ${error.message}`, {
      suggestion:
        "It needs nftables >= 1.0 and a kernel with nft_tproxy, nft_fib_inet and nft_reject_inet; see `atoll doctor`",
      cause: error,
    });
  }
}
