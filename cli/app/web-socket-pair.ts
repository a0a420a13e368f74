/** States of a WebSocket, as everywhere. */
const open = 1;
const closing = 2;
const closed = 3;

let connect: (one: PairedSocket, other: PairedSocket) => void;

/** Ends a pair as if `end` had closed it so; both are told, the other also of an error that was the cause. */
export let hangUp: (end: PairedSocket, told: CloseEventInit, error?: Error) => void;

/** What this end has sent and the other has not accepted yet, with what keeping it costs. */
export let waitingBytes: (end: PairedSocket) => number;

/** An event that waits, beside its data. */
const eventBytes = 256;

/**
 * One end of a pair of WebSockets that are connected to each other, as Workers have it: an app keeps one and gives the other
 * away, with a Response. What arrives before `accept` waits for it.
 */
export class PairedSocket extends EventTarget {
  /** Itself until there is another. */
  #peer: PairedSocket = this;
  #state = open;
  /** Undefined: accepted. */
  #waiting: Event[] | undefined = [];
  #waitingBytes = 0;

  get readyState(): number {
    return this.#state;
  }

  accept(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    this.#waitingBytes = 0;
    for (const event of waiting) this.#dispatch(event);
  }

  /** Throws TypeError before `accept`, after `close`, and for what is neither text nor bytes. */
  send(data: string | ArrayBuffer | ArrayBufferView): void {
    if (this.#waiting) throw new TypeError("Cannot send by a WebSocket: accept() was not called");
    if (this.#state !== open) throw new TypeError("Cannot send by a WebSocket: it was closed");
    const peer = this.#peer;
    peer.#arrive(new MessageEvent("message", { data: copyOf(data) }));
  }

  /** Says goodbye; both ends are told. Throws TypeError for a code or reason that cannot be sent. */
  close(code?: number, reason = ""): void {
    if (code !== undefined && !canBeSent(code)) throw new TypeError(`Cannot close a WebSocket with code ${code}`);
    if (Buffer.byteLength(reason) > 123) throw new TypeError("Cannot close a WebSocket: the reason exceeds 123 bytes");
    if (this.#state !== open) return;
    this.#state = closing;
    hangUp(this, { code: code ?? 1005, reason, wasClean: true });
  }

  #arrive(event: Event): void {
    if (this.#state === closed) return;
    if (!this.#waiting) return this.#dispatch(event);
    this.#waiting.push(event);
    this.#waitingBytes += eventBytes + (event instanceof MessageEvent ? lengthOf(event.data as Data) : 0);
  }

  #end(told: CloseEventInit): void {
    if (this.#state === closed) return;
    this.#arrive(new CloseEvent("close", told));
    this.#state = closed;
  }

  /** Later: whoever sends is not to find itself within the handler of what is answered. */
  #dispatch(event: Event): void {
    queueMicrotask(() => this.dispatchEvent(event));
  }

  static {
    connect = (one, other) => {
      one.#peer = other;
      other.#peer = one;
    };
    waitingBytes = (end) => end.#peer.#waitingBytes;
    hangUp = (end, told, error) => {
      const peer = end.#peer;
      if (error) peer.#arrive(Object.assign(new Event("error"), { error, message: error.message }));
      peer.#end(told);
      end.#end(told);
    };
  }
}

/** `const [client, server] = Object.values(new WebSocketPair())`. */
export class WebSocketPair {
  readonly 0 = new PairedSocket();
  readonly 1 = new PairedSocket();

  constructor() {
    connect(this[0], this[1]);
  }
}

type Data = string | ArrayBuffer;

function lengthOf(data: Data): number {
  return typeof data === "string" ? data.length : data.byteLength;
}

/** Bytes arrive as an ArrayBuffer of their own: what the sender does with its own later changes nothing. */
function copyOf(data: unknown): Data {
  if (typeof data === "string") return data;
  if (data instanceof ArrayBuffer) return data.slice(0);
  if (ArrayBuffer.isView(data))
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice().buffer as ArrayBuffer;
  throw new TypeError("Cannot send by a WebSocket: it is neither text nor bytes");
}

/** RFC 6455, 7.4: 1004 to 1006 and 1015 stand for what is no frame. */
function canBeSent(code: number): boolean {
  if (code >= 3000 && code <= 4999) return true;
  return code >= 1000 && code <= 1014 && (code < 1004 || code > 1006);
}
