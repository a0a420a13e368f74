import type { ServerResponse } from "node:http";

/**
 * Sends a Response, its body at the pace of whoever reads it. Resolves when it has left or the client has gone, whose going
 * cancels the body. Throws what the body throws, and when it is not as long as its Content-Length says: before the head has left
 * nothing is sent, later the client is cut off, so that it takes neither a part for the whole nor the rest for the next answer.
 */
export async function answer(response: Response, outgoing: ServerResponse): Promise<void> {
  if (outgoing.destroyed) return void (await response.body?.cancel());
  const { status, statusText, body } = response;
  const isBodiless = outgoing.req.method === "HEAD" || status === 304; // its length is another answer's
  const headers = headersOf(response).filter(([name]) => name !== "content-length" || body !== null || isBodiless);
  const head = () => outgoing.writeHead(status, ...(statusText ? [statusText] : []), headers.flat());
  if (body === null || outgoing.req.method === "HEAD") {
    await body?.cancel();
    head().end();
    return ended(outgoing);
  }
  const reader = (body as ReadableStream<unknown>).getReader();
  const onClose = () => void reader.cancel(gone()).catch(() => {}); // whom it hinders is not there any more
  outgoing.once("close", onClose);
  try {
    const { chunks, isWhole, next } = await readAtOnce(reader);
    if (isWhole) {
      const bytes = Buffer.concat(chunks);
      const length = headers.find(([name]) => name === "content-length");
      if (length) length[1] = String(bytes.length);
      else headers.push(["content-length", String(bytes.length)]);
      head().end(bytes);
      return await ended(outgoing);
    }
    const length = new Length(headers.find(([name]) => name === "content-length")?.[1]);
    head().flushHeaders();
    for (const chunk of chunks) await write(outgoing, length.add(chunk));
    for (let { done, value } = await next; !done; { done, value } = await reader.read()) {
      await write(outgoing, length.add(bytesOf(value)));
    }
    length.requireWhole();
    outgoing.end();
    await ended(outgoing);
  } catch (error) {
    reader.cancel(error).catch(() => {}); // it is told already
    if (outgoing.destroyed) return;
    if (outgoing.headersSent) outgoing.destroy();
    throw error;
  } finally {
    outgoing.off("close", onClose);
  }
}

/** Of a connection: ours has its own. What was packed for fetch it has unpacked, and then its length is another. */
function headersOf(response: Response): [string, string][] {
  const dropped = new Set(["keep-alive", "proxy-connection", "transfer-encoding"]);
  if (response.status !== 426) dropped.add("connection");
  if (response.url !== "" && response.headers.has("content-encoding")) {
    dropped.add("content-encoding").add("content-length");
  }
  return [...response.headers].filter(([name]) => !dropped.has(name));
}

type Read = ReadableStreamReadResult<unknown>;
type AtOnce = { chunks: Buffer[]; isWhole: boolean; next: Promise<Read> };

/** What is there already. A small body is whole then, so its length can be told. */
async function readAtOnce(reader: ReadableStreamDefaultReader<unknown>): Promise<AtOnce> {
  const chunks: Buffer[] = [];
  for (;;) {
    const next = reader.read();
    next.catch(() => {}); // told where it is awaited, which may be later
    const read = await Promise.race([
      next,
      new Promise<undefined>((resolve) => setImmediate(() => resolve(undefined))),
    ]);
    if (read?.done) return { chunks, isWhole: true, next };
    if (read === undefined || chunks.length === 2) return { chunks, isWhole: false, next };
    chunks.push(bytesOf(read.value));
  }
}

function bytesOf(value: unknown): Buffer {
  if (typeof value === "string") return Buffer.from(value);
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  throw new TypeError(`Cannot send the body of a Response: it gave ${typeof value}, where bytes or text can be sent`);
}

/** Sees that a body is as long as was said, if it was. Throws TypeError. */
class Length {
  readonly #said: number | undefined;
  #bytes = 0;

  constructor(said: string | undefined) {
    if (said !== undefined && !/^\d{1,15}$/.test(said))
      throw new TypeError(`Cannot send a Response: its Content-Length ${JSON.stringify(said)} is no number`);
    this.#said = said === undefined ? undefined : Number(said);
  }

  /** Gives the bytes back, if they are not too many. */
  add(bytes: Buffer): Buffer {
    this.#bytes += bytes.length;
    if (this.#said !== undefined && this.#bytes > this.#said)
      throw new TypeError(`Cannot send the body of a Response: it exceeds its Content-Length of ${this.#said}`);
    return bytes;
  }

  requireWhole(): void {
    if (this.#said !== undefined && this.#bytes < this.#said)
      throw new TypeError(
        `Cannot send the body of a Response: it has ${this.#bytes} bytes of its Content-Length of ${this.#said}`,
      );
  }
}

async function write(outgoing: ServerResponse, bytes: Buffer): Promise<void> {
  if (outgoing.write(bytes) || outgoing.destroyed) return;
  await settled(outgoing, "drain");
}

async function ended(outgoing: ServerResponse): Promise<void> {
  if (!outgoing.writableFinished && !outgoing.destroyed) await settled(outgoing, "finish");
}

/** Until this happens, or nothing will. */
function settled(outgoing: ServerResponse, event: "drain" | "finish"): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      outgoing.off(event, done);
      outgoing.off("close", done);
      resolve();
    };
    outgoing.on(event, done);
    outgoing.on("close", done);
  });
}

function gone(): Error {
  return new DOMException("The client has gone", "AbortError");
}
