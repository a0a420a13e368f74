import type { Config } from "../config.ts";
import type { Cgroups } from "../linux/cgroup.ts";
import type { Log } from "../log.ts";
import type { Network } from "../network/network.ts";
import type { HostLimits } from "../runtime/spec.ts";
import type { Runtime } from "../runtime/oci.ts";
import type { Seccomp } from "../runtime/seccomp.ts";
import type { Disks } from "../storage/disks.ts";
import type { Images } from "../storage/images.ts";
import type { Followers } from "./followers.ts";
import type { Journal } from "./journal.ts";
import type { Records } from "./record.ts";
import type { PreviewPlaces } from "./port.ts";
import type { PortTable } from "./port-table.ts";
import type { ServiceTable } from "./service-table.ts";

/** What this folder joins; made once by main. */
export type Machines = {
  /** The version of this daemon's program. */
  version: string;
  config: Config;
  log: Log;
  records: Records;
  services: ServiceTable;
  ports: PortTable;
  previewPlaces: PreviewPlaces;
  journal: Journal;
  followers: Followers;
  images: Images;
  disks: Disks;
  network: Network;
  runtime: Runtime;
  cgroups: Cgroups;
  hostLimits: HostLimits;
  seccomp: Seccomp;
  /** The agent's binary, where every path to it can be passed by the sandboxes' root. */
  agentFile: string;
};

/** The control group of a run, below the root of every hierarchy. */
export function groupOf(machines: Machines, run: string): string {
  return `${groupsOf(machines)}/${run}`;
}

/** The parent of all control groups of this daemon. */
export function groupsOf({ config }: Machines): string {
  return `atoll-${config.tag}`;
}
