import type { Socket } from "node:net";
import type { Run } from "../sandbox/run.ts";
import { connectToPort } from "../sandbox/visit.ts";

/** Shorter than what servers keep an idle connection for (Node 5 s), so that few requests meet a closed one. */
const idleMs = 2_000;

/** What ten browsers open to one host. Fewer would be closed and opened again all the time by many who ask at once. */
const idleConnections = 64;

/** Whoever has a connection for one request: what happens on it. */
export type InnerUser = {
  /** The chunk is valid until this returns. */
  onData(chunk: Buffer): void;
  /** The server sends no more. */
  onEnd(): void;
  /** Nothing follows. With the error, when it was one. */
  onClose(error: Error | undefined): void;
};

/** A connection to a port of a run, for one request at a time. */
export class InnerConnection {
  readonly socket: Socket;
  /** Whether a request went over it before this one. */
  isUsed = false;
  /** When the last one ended, by `performance.now`. */
  idleSinceMs = 0;
  readonly #pool: IdlePool;
  #user: InnerUser | undefined;
  #error: Error | undefined;

  constructor(socket: Socket, pool: IdlePool) {
    this.socket = socket;
    this.#pool = pool;
    socket.on("data", this.hear).on("end", this.#onEnd);
    socket.on("error", this.#onError).on("close", this.#onClose);
  }

  use(user: InnerUser): void {
    this.#user = user;
  }

  /**
   * A server may answer and close before it has read all that it is sent. What is written then fails, and a socket ends with
   * that, together with the answer that waits in it: so such a failure is left to be told by whoever reads.
   */
  hearOut(): void {
    const { socket } = this;
    const [write, writev] = [socket._write.bind(socket), socket._writev?.bind(socket)];
    socket._write = (chunk, encoding, done) => write(chunk, encoding, () => done());
    if (writev) socket._writev = (chunks, done) => writev(chunks, () => done());
  }

  /** Nobody uses it any more; another request may follow. */
  giveBack(): void {
    this.#user = undefined;
    this.isUsed = true;
    if (this.socket.isPaused()) this.socket.resume(); // its last user waited for a slow visitor
    this.#pool.add(this);
  }

  /** Ends it; its user hears no more. */
  destroy(): void {
    this.#user = undefined;
    this.socket.destroy();
  }

  /** The bare socket, for another protocol. Nobody listens to it. */
  detach(): Socket {
    this.#user = undefined;
    this.socket.off("data", this.hear).off("end", this.#onEnd);
    return this.socket.off("error", this.#onError).off("close", this.#onClose).pause();
  }

  /** What the socket has read. */
  readonly hear = (chunk: Buffer) => {
    if (this.#user) this.#user.onData(chunk);
    else this.socket.destroy(); // it speaks unasked: the next request would be answered with that
  };
  readonly #onEnd = () => (this.#user ? this.#user.onEnd() : void this.socket.destroy());
  readonly #onError = (error: Error) => (this.#error = error);
  readonly #onClose = () => {
    const user = this.#user;
    this.#user = undefined;
    if (user) user.onClose(this.#error);
    else this.#pool.remove(this);
  };
}

/** Those to one port of a run that wait for another request, the one that waits longest first. */
class IdlePool {
  readonly #idle: InnerConnection[] = [];
  #timer: NodeJS.Timeout | undefined;

  add(connection: InnerConnection): void {
    if (this.#idle.length >= idleConnections || connection.socket.destroyed) return void connection.socket.destroy();
    connection.idleSinceMs = performance.now();
    this.#idle.push(connection);
    if (this.#timer === undefined) this.#timer = setTimeout(this.#closeOld, idleMs).unref();
  }

  take(): InnerConnection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (!connection?.socket.destroyed) return connection;
    }
  }

  remove(connection: InnerConnection): void {
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
  }

  /** One timer for all: on the sockets each would be set anew at every request. */
  readonly #closeOld = () => {
    const oldMs = performance.now() - idleMs;
    while (this.#idle[0] && this.#idle[0].idleSinceMs <= oldMs) this.#idle.shift()!.socket.destroy();
    const [next] = this.#idle;
    this.#timer = next && setTimeout(this.#closeOld, next.idleSinceMs - oldMs).unref();
  };
}

/** Pools by run and port. They end with the run. */
const pools = new WeakMap<Run, Map<number, IdlePool>>();

/** A connection that is there and idle. */
export function takeIdle(run: Run, port: number): InnerConnection | undefined {
  return poolOf(run, port).take();
}

/** A new connection; `toDetach`: for another protocol. Throws as connectToPort. */
export async function connectInner(
  run: Run,
  port: number,
  signal: AbortSignal,
  toDetach: boolean,
): Promise<InnerConnection> {
  // nothing is read before the turn in which the socket is made has ended
  const onRead = toDetach ? undefined : (chunk: Buffer) => connection.hear(chunk);
  const connection = new InnerConnection(await connectToPort(run, port, signal, onRead), poolOf(run, port));
  return connection;
}

function poolOf(run: Run, port: number): IdlePool {
  let ports = pools.get(run);
  if (!ports) pools.set(run, (ports = new Map()));
  let pool = ports.get(port);
  if (!pool) ports.set(port, (pool = new IdlePool()));
  return pool;
}
