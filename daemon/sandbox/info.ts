import type { SandboxInfo, SandboxState } from "../../protocol/sandbox.ts";
import type { Machines } from "./machines.ts";
import { describePort } from "./port.ts";
import type { SandboxRecord } from "./record.ts";
import type { Run } from "./run.ts";

/** What users see of a sandbox. `state`: absent when it has no run; `run`: the one that runs. */
export function describeSandbox(
  { ports, previewPlaces }: Machines,
  record: SandboxRecord,
  state: SandboxState | undefined,
  run: Run | undefined,
): SandboxInfo {
  const { config } = record;
  const activeAt = run ? Date.now() - Math.round(run.activity.idleMs()) : record.lastActive;
  return {
    id: record.name,
    state: state ?? (record.runNumber === 0 ? "none" : "asleep"),
    run: record.runNumber,
    isolation: config.isolation,
    image: { name: record.image, digest: record.imageDigest },
    instance: config.instance,
    labels: config.labels,
    ...(config.className !== undefined && { className: config.className }),
    ports: ports.of(record.key).map((row) => {
      const { port, name, url } = describePort(row, previewPlaces, run !== undefined);
      return { port, ...(name !== undefined && { name }), url };
    }),
    created: record.created,
    lastActive: Math.max(activeAt, record.lastActive),
    sleepAfterMs: config.sleepAfterMs,
    keepAlive: config.keepAlive,
    ...(config.maxLifetimeMs !== null && { maxLifetimeMs: config.maxLifetimeMs }),
    ...(record.lastEnd && { lastEnd: record.lastEnd }),
  };
}
