import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { TestDaemon } from "../support/daemon.ts";
import { hostPids, tagOf } from "./boxes.ts";

/** Where the host sees the directory of a running sandbox's socket. */
export function linkDirOf(daemon: TestDaemon, name: string): string {
  const runs = `/run/atoll/${tagOf(daemon)}`;
  const isThatOne = (run: string) =>
    /^[0-9a-f]{12}$/.test(run) && readFileSync(join(runs, run, "etc/hostname"), "utf8").trim() === name;
  const run = readdirSync(runs).find(isThatOne);
  if (run === undefined) throw new Error(`Cannot find the run of "${name}"`);
  return join(runs, run, "link");
}

/** The agent of a running sandbox, by the host's number. */
export function agentPidOf(daemon: TestDaemon, name: string): number {
  const run = linkDirOf(daemon, name).split("/").at(-2) ?? "";
  const isOfRun = (pid: number) => readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(run);
  const pid = hostPids(daemon, "/run/atoll/agent").find(isOfRun);
  if (pid === undefined) throw new Error(`Cannot find the agent of "${name}"`);
  return pid;
}

/** One call of the API as it is on the wire: no client that tries again. */
export async function ask(
  daemon: TestDaemon,
  path: string,
  {
    json,
    signal,
    method = json === undefined ? "GET" : "POST",
  }: { json?: unknown; signal?: AbortSignal; method?: string } = {},
): Promise<{ status: number; text: string }> {
  const response = await fetch(`${daemon.url}/v1/sandboxes/${path}`, {
    method,
    headers: { authorization: `Bearer ${daemon.token}`, "content-type": "application/json" },
    ...(json !== undefined && { body: JSON.stringify(json) }),
    ...(signal && { signal }),
  });
  return { status: response.status, text: await response.text() };
}
