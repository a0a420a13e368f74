import { Agent, type ClientRequestArgs } from "node:http";
import type { Duplex } from "node:stream";
import { connectToPort } from "../sandbox/visit.ts";
import type { Run } from "../sandbox/run.ts";

/** Shorter than what servers keep an idle connection for (Node 5 s), so that few requests meet a closed one. */
const idleMs = 2_000;

/** As many as a browser opens to one host, twice: more only wait idle. */
const idleConnections = 12;

const pools = new WeakMap<Run, Map<number, Agent>>();

/** How long a new connection may be waited for. */
export type PoolRequest = ClientRequestArgs & { within: AbortSignal };

/** Connections to one port of one run that are used again. They end with the run. */
export function poolOf(run: Run, port: number): Agent {
  let ports = pools.get(run);
  if (!ports) pools.set(run, (ports = new Map()));
  let pool = ports.get(port);
  if (!pool) ports.set(port, (pool = makePool(run, port)));
  return pool;
}

function makePool(run: Run, port: number): Agent {
  const pool = new Agent({ keepAlive: true, timeout: idleMs, maxFreeSockets: idleConnections });
  pool.createConnection = (options, done) => {
    const { within } = options as PoolRequest;
    connectToPort(run, port, within).then(
      (stream: Duplex) => done?.(null, stream),
      (error: Error) => (done as (error: Error) => void)(error),
    );
    return undefined;
  };
  return pool;
}
