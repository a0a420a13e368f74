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
  onDrain(): void;
  /** Nothing follows. With the error, when it was one. */
  onClose(error: Error | undefined): void;
};

/** A connection to a port of a run, for one request at a time. */
export class InnerConnection {
  readonly socket: Socket;
  /** Whether a request went over it before this one. */
  isUsed = false;
  readonly #idle: InnerConnection[];
  #user: InnerUser | undefined;
  #error: Error | undefined;

  constructor(socket: Socket, idle: InnerConnection[]) {
    this.socket = socket;
    this.#idle = idle;
    socket.on("data", this.hear).on("end", this.#onEnd).on("drain", this.#onDrain);
    socket.on("error", this.#onError).on("close", this.#onClose);
    socket.setTimeout(idleMs, this.#onTimeout);
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
    this.socket.resume(); // its last user may have waited for a slow visitor
    if (this.#idle.length < idleConnections && !this.socket.destroyed) this.#idle.push(this);
    else this.socket.destroy();
  }

  /** Ends it; its user hears no more. */
  destroy(): void {
    this.#user = undefined;
    this.socket.destroy();
  }

  /** The bare socket, for another protocol. Nobody listens to it. */
  detach(): Socket {
    this.#user = undefined;
    this.socket.setTimeout(0, this.#onTimeout);
    this.socket.off("data", this.hear).off("end", this.#onEnd).off("drain", this.#onDrain);
    return this.socket.off("error", this.#onError).off("close", this.#onClose).pause();
  }

  /** What the socket has read. */
  readonly hear = (chunk: Buffer) => {
    if (this.#user) this.#user.onData(chunk);
    else this.socket.destroy(); // it speaks unasked: the next request would be answered with that
  };
  readonly #onEnd = () => (this.#user ? this.#user.onEnd() : void this.socket.destroy());
  readonly #onDrain = () => this.#user?.onDrain();
  readonly #onError = (error: Error) => (this.#error = error);
  readonly #onTimeout = () => {
    if (!this.#user) this.socket.destroy();
  };
  readonly #onClose = () => {
    const user = this.#user;
    this.#user = undefined;
    const at = this.#idle.indexOf(this);
    if (at >= 0) this.#idle.splice(at, 1);
    user?.onClose(this.#error);
  };
}

/** Idle connections, by run and port. They end with the run. */
const pools = new WeakMap<Run, Map<number, InnerConnection[]>>();

/** A connection that is there and idle. */
export function takeIdle(run: Run, port: number): InnerConnection | undefined {
  const idle = idleOf(run, port);
  for (;;) {
    const connection = idle.pop();
    if (!connection?.socket.destroyed) return connection;
  }
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
  const connection = new InnerConnection(await connectToPort(run, port, signal, onRead), idleOf(run, port));
  return connection;
}

function idleOf(run: Run, port: number): InnerConnection[] {
  let ports = pools.get(run);
  if (!ports) pools.set(run, (ports = new Map()));
  let idle = ports.get(port);
  if (!idle) ports.set(port, (idle = []));
  return idle;
}
