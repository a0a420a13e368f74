import { defaultUidBase, openImages } from "../daemon/storage/images.ts";
import { type Connection, getSandbox, type Sandbox } from "../sdk/index.ts";
import { TestDaemon } from "../test/support/daemon.ts";
import { findPeers, type Peers } from "./peers/peers.ts";

/** What the benchmarks share: a daemon of their own, a connection to it, the peers that this machine has. */
export type World = AsyncDisposable & {
  daemon: TestDaemon;
  connection: Connection;
  peers: Peers;
  /** The base image's root file system: peers run the same programs. */
  rootDir: string;
  /** A sandbox of this name; without one, a name that nobody had before. */
  box(name?: string): Sandbox;
};

export async function openWorld(): Promise<World> {
  await using opened = new AsyncDisposableStack();
  const images = await openImages(process.env["ATOLL_STORE_DIR"] ?? "/var/lib/atoll/store", {
    uidBase: defaultUidBase,
  });
  const base = await images.find("base");
  if (!base) throw new Error('Cannot run the benchmarks: there is no image "base". Run ./setup');
  const daemon = opened.use(await TestDaemon.start({ env: { ATOLL_LOG_LEVEL: "info" } }));
  const connection = daemon.connect();
  opened.defer(() => connection.close());
  const peers = opened.use(findPeers(base.rootDir));
  let names = 0;
  const closing = opened.move();
  return {
    daemon,
    connection,
    peers,
    rootDir: base.rootDir,
    box: (name = `n${++names}`) => getSandbox(connection, name),
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  };
}
