import { bwrapPeer } from "./bwrap.ts";
import { dockerPeer } from "./docker.ts";
import { runcPeer } from "./runc.ts";

/** Others that isolate a program. Each is undefined where it is not installed; what it needs is started when first used. */
export type Peers = AsyncDisposable & {
  docker: Docker | undefined;
  runc: Runc | undefined;
  bwrap: Bwrap | undefined;
  /** Program to version, for those that are there. */
  versions: Record<string, string>;
};

export type Docker = {
  /** Starts the engine with the base image in it; quick when it is there already. */
  ready(): Promise<void>;
  docker(...args: string[]): Promise<string>;
};
export type Runc = {
  runTrue(): Promise<unknown>;
  startSleeper(): Promise<AsyncDisposable & { execTrue(): Promise<unknown> }>;
};
export type Bwrap = { runTrue(): Promise<unknown> };

export function findPeers(rootDir: string): Peers {
  const stack = new AsyncDisposableStack();
  const docker = dockerPeer(rootDir, stack);
  const runc = runcPeer(rootDir, stack);
  const bwrap = bwrapPeer(rootDir);
  const versions = Object.entries({ docker, runc, bwrap }).flatMap(([name, peer]) =>
    peer ? [[name, peer.version]] : [],
  );
  return {
    docker,
    runc,
    bwrap,
    versions: Object.fromEntries(versions) as Record<string, string>,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
