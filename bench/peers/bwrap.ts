import { call, versionOf } from "./program.ts";
import type { Bwrap } from "./peers.ts";

/** Bubblewrap: all namespaces, nothing that lives on afterwards; the lower bound of what isolation costs. */
export function bwrapPeer(rootDir: string): (Bwrap & { version: string }) | undefined {
  const version = versionOf("bwrap");
  if (version === undefined) return undefined;
  const args = ["--unshare-all", "--ro-bind", rootDir, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"];
  return { version, runTrue: () => call("bwrap", ...args) };
}
