import type { ServerResponse } from "node:http";

/**
 * Sends a Response, its body at the pace of whoever reads it. Resolves when it has left or the client has gone, whose going
 * cancels the body. Throws what the body throws: before the head has left nothing is sent, later the client is cut off, so that
 * it does not take a part for the whole.
 */
export async function answer(response: Response, outgoing: ServerResponse): Promise<void> {
  if (outgoing.destroyed) return void (await response.body?.cancel());
  const headers = headersOf(response);
  const { status, statusText, body } = response;
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
      if (!headers.some(([name]) => name === "content-length")) headers.push(["content-length", String(bytes.length)]);
      head().end(bytes);
      return await ended(outgoing);
    }
    head().flushHeaders();
    for (const chunk of chunks) await write(outgoing, chunk);
    for (let { done, value } = await next; !done; { done, value } = await reader.read()) {
      await write(outgoing, bytesOf(value));
    }
    outgoing.end();
    await ended(outgoing);
  } catch (error) {
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
