import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { GatewayConnection, type Attachment, type GatewayLine, type GatewayState } from "../../protocol/gateway.ts";
import { killAndWait } from "../linux/process.ts";
import { callGateway, followGateway, GatewayRefusal } from "./gateway-call.ts";
import {
  endGatewayProcesses,
  findGateway,
  launchGateway,
  openGatewaySockets,
  prepareGatewayPlace,
  removeGatewayPlace,
  type GatewayProcess,
  type GatewaySockets,
} from "./gateway-process.ts";

export type NetworkLog = (level: GatewayLine["level"], fields: GatewayLine["fields"], message: string) => void;

export type GatewayOptions = { tag: string; runDir: string; dataDir: string; storeDir: string; log: NetworkLog };

/**
 * The daemon's gateway, whichever process it is at the moment: one that dies is replaced at once, with its sockets and its
 * table. A call meanwhile waits for the next one. Disposing leaves it going, for the next daemon.
 */
export type Gateway = AsyncDisposable & {
  /** Of the process as of now. */
  pid(): Promise<number>;
  setState(change: Partial<GatewayState>): Promise<void>;
  attach(attachment: Attachment): Promise<void>;
  detach(address: string): Promise<void>;
  connections(address?: string): Promise<GatewayConnection[]>;
  copyNames(from: string, to: string): Promise<void>;
  forgetNames(names: string): Promise<void>;
  /** Ends it for good. */
  end(): Promise<void>;
};

/**
 * Takes over the gateway of the daemon before, if it is of this version and answers; otherwise starts one. Without
 * attachments in `first`, a gateway taken over keeps its own until `setState` names them.
 * The hub and the host's rules must be there.
 */
export async function openGateway(options: GatewayOptions, first: GatewayState): Promise<Gateway> {
  const { log } = options;
  const place = await prepareGatewayPlace(options);
  const stop = new AbortController();
  let state = first;
  let sockets: GatewaySockets | undefined;

  const bringUp = async (found?: GatewayProcess): Promise<Life> => {
    await endGatewayProcesses(place.uid, found?.process);
    const born = found ?? (await launchGateway(place, (sockets ??= await openGatewaySockets(place))));
    const signal = AbortSignal.any([stop.signal, born.gone]);
    const ended = followGateway(place.control, signal, (line) => log(line.level, line.fields, line.message));
    try {
      await callGateway(place.control, "PUT", "/state", state, signal);
      return { ...born, ended };
    } catch (error) {
      // By its own id: until it has become the gateway's uid nobody would find it. One that runs well is not ours to end.
      if (!found || !stop.signal.aborted) await killAndWait(born.process);
      throw error;
    }
  };
  const renew = async (): Promise<Life> => {
    for (let waitMs = 50; ; waitMs = Math.min(2 * waitMs, retryLimitMs)) {
      stop.signal.throwIfAborted();
      try {
        return await bringUp();
      } catch (error) {
        if (!stop.signal.aborted)
          log("error", { error: String(error) }, "the gateway does not start: no sandbox has a way out");
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
  };

  /** The gateway of now, once it has its table. */
  let life = bringUp(await findGateway(place));
  try {
    await life;
  } catch (error) {
    await endGatewayProcesses(place.uid);
    sockets?.[Symbol.dispose]();
    throw error;
  }
  const watching = (async () => {
    while (!stop.signal.aborted) {
      const { process, ended } = await life;
      await ended;
      if (stop.signal.aborted) return;
      log("warn", { pid: process.pid }, "the gateway has ended and is started again");
      life = renew();
      await life.catch(() => {}); // only stopping makes it fail
    }
  })();

  const call = async (method: string, route: string, body?: unknown): Promise<unknown> => {
    for (;;) {
      const { process, ended, gone } = await life;
      try {
        return await callGateway(place.control, method, route, body, AbortSignal.any([stop.signal, gone]));
      } catch (error) {
        stop.signal.throwIfAborted();
        if (error instanceof GatewayRefusal) throw error;
        if (error instanceof Error && error.name === "TimeoutError") await killAndWait(process);
        // The next one is born with the whole table, and is asked again. Its sockets close a moment before it is dead.
        const alive = Symbol("alive");
        if ((await Promise.race([ended, sleep(dyingMs, alive, { ref: false })])) === alive) throw error;
      }
    }
  };
  const close = async () => {
    stop.abort(new Error("The network is closed"));
    await watching.catch(() => {});
    sockets?.[Symbol.dispose]();
    sockets = undefined;
  };

  return {
    pid: async () => (await life).process.pid,
    setState: async (change) => {
      state = { ...state, ...change };
      await call("PUT", "/state", state);
    },
    attach: async (attachment) => {
      state = { ...state, attachments: [...without(state.attachments, attachment.address), attachment] };
      await call("PUT", `/attachments/${attachment.address}`, attachment);
    },
    detach: async (address) => {
      state = { ...state, attachments: without(state.attachments, address) };
      await call("DELETE", `/attachments/${address}`);
    },
    connections: async (address) => {
      const answer = await call("GET", address === undefined ? "/connections" : `/connections?address=${address}`);
      return z.object({ connections: z.array(GatewayConnection) }).parse(answer).connections;
    },
    copyNames: async (from, to) => void (await call("POST", `/names/${to}?from=${from}`)),
    forgetNames: async (names) => void (await call("DELETE", `/names/${names}`)),
    end: async () => {
      await close();
      await endGatewayProcesses(place.uid);
      await removeGatewayPlace(place);
    },
    [Symbol.asyncDispose]: close,
  };
}

type Life = GatewayProcess & { ended: Promise<void> };

/** From the first closed socket of a dying process to the last. */
const dyingMs = 2_000;

/** How long sandboxes without a gateway wait at most for the next try. */
const retryLimitMs = 2_000;

function without(attachments: readonly Attachment[] | undefined, address: string): Attachment[] {
  return (attachments ?? []).filter((other) => other.address !== address);
}
