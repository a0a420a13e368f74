import type { ImageInfo } from "../../protocol/machine.ts";
import type { EventOutput } from "../../protocol/verbs.ts";
import { wireVersion } from "../../protocol/version.ts";
import { examineHost } from "../runtime/host.ts";
import type { ServeTable } from "../sandbox/call.ts";
import type { Machines } from "../sandbox/machines.ts";
import type { Image } from "../storage/images.ts";

type Verb = "health" | "doctor" | "down" | "listImages" | "buildImage" | "listConnections";

/** What the API asks of the process it runs in. */
export type Host = { version: string; startedAt: number; requestDown(options: { purge: boolean }): void };

/** Verbs about the machine: the daemon, its host, its images. */
export function machineVerbs(machines: Machines, host: Host): ServeTable<Verb> {
  const { config, images, network } = machines;
  return {
    async health() {
      const { tag, dataDir } = config;
      return { version: host.version, wire: wireVersion, tag, pid: process.pid, dataDir, startedAt: host.startedAt };
    },
    async doctor() {
      return { checks: await examineHost(config) };
    },
    async down(_, { body }) {
      host.requestDown(body);
      return {};
    },
    async listImages() {
      const named = (await images.list()).filter((image) => image.name !== undefined);
      return { images: named.map((image) => toInfo(image, image.name ?? "")) };
    },
    async buildImage(_, { params }, { signal }) {
      return build(machines, params.image, signal);
    },
    async listConnections(run) {
      if (run?.slot === undefined) return { connections: [] };
      const connections = await network.connections(run.slot);
      return {
        connections: connections.map(({ openedAtMs: openedAt, host: name, port, bytesUp, bytesDown, state }) => ({
          host: name,
          port,
          state,
          openedAt,
          bytesUp,
          bytesDown,
        })),
      };
    },
  };
}

async function* build(
  { images }: Machines,
  name: string,
  signal: AbortSignal,
): AsyncGenerator<{ event: EventOutput<"buildImage"> }, void, undefined> {
  const steps: string[] = [];
  let told = Promise.withResolvers<void>();
  let ended = false;
  const onStep = (text: string) => {
    steps.push(text);
    told.resolve();
  };
  const building = images.build(name, { onStep, signal }).finally(() => {
    ended = true;
    told.resolve();
  });
  building.catch(() => {}); // awaited below
  while (!ended || steps.length > 0) {
    const text = steps.shift();
    if (text !== undefined) yield { event: { type: "step", text } };
    else {
      await told.promise;
      told = Promise.withResolvers();
      if (ended) told.resolve();
    }
  }
  yield { event: { type: "complete", image: toInfo(await building, name) } };
}

function toInfo(image: Image, name: string): ImageInfo {
  return { name, digest: image.digest, sizeBytes: image.sizeBytes, createdAt: image.createdAt.getTime() };
}
