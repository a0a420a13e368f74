import { SandboxError } from "../protocol/errors.ts";
import { base64ToBytes, bytesToBase64, joinBytes } from "./bytes.ts";
import { asyncIterableToSSEStream, parseSSEStream } from "./events.ts";
import type { FileChunk, FileMetadata, FileStreamEvent } from "./file-types.ts";
import { openFile } from "./files.ts";
import { mimeTypeOf } from "./mime.ts";
import type { Scope } from "./scope.ts";

/** Contract: SessionMethods.readFileStream. Resolves when the file is open, so that a missing one is thrown here. */
export async function readFileStream(scope: Scope, path: string): Promise<ReadableStream<Uint8Array>> {
  const { body, file } = await openFile(scope, path);
  return asyncIterableToSSEStream(fileEvents(body, file.name, file.size));
}

async function* fileEvents(
  body: ReadableStream<Uint8Array>,
  name: string,
  size: number,
): AsyncGenerator<FileStreamEvent> {
  const reader = body.getReader();
  let bytesRead = 0;
  try {
    let { done, value: chunk } = await reader.read();
    const isBinary = chunk !== undefined && !beginsLikeText(chunk);
    const encoding = isBinary ? "base64" : "utf-8";
    yield { type: "metadata", mimeType: mimeTypeOf(name, isBinary), size, isBinary, encoding };
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    while (!done && chunk) {
      bytesRead += chunk.length;
      const data = isBinary ? bytesToBase64(chunk) : decoder.decode(chunk, { stream: true });
      if (data !== "") yield { type: "chunk", data };
      ({ done, value: chunk } = await reader.read());
    }
    const rest = decoder.decode();
    if (rest !== "") yield { type: "chunk", data: rest };
    yield { type: "complete", bytesRead };
  } catch (error) {
    yield { type: "error", error: error instanceof Error ? error.message : String(error) };
  } finally {
    await reader.cancel().catch(() => {}); // it failed before, which was told
  }
}

/** Whether a file's first bytes are UTF-8 without NUL; a character may be cut off at their end. */
function beginsLikeText(bytes: Uint8Array): boolean {
  if (bytes.includes(0)) return false;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false; // no UTF-8
  }
}

/**
 * The content of a stream from `readFileStream`, as it comes: text of a text file, bytes of any other. The generator
 * returns the metadata. Throws OPERATION_INTERRUPTED when the stream tells an error or ends too early.
 */
export async function* streamFile(
  stream: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<FileChunk, FileMetadata, undefined> {
  let metadata: FileMetadata | undefined;
  for await (const event of parseSSEStream<FileStreamEvent>(stream, signal)) {
    if (event.type === "metadata") {
      const { type: _, ...rest } = event;
      metadata = rest;
    } else if (event.type === "chunk") {
      yield metadata?.encoding === "base64" ? base64ToBytes(event.data) : event.data;
    } else if (event.type === "error") throw interrupted(event.error);
    else if (metadata) return metadata;
  }
  throw interrupted("its stream ended too early");
}

/** The whole content of a stream from `readFileStream`: text of a text file, bytes of any other. */
export async function collectFile(
  stream: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
): Promise<{ content: string | Uint8Array; metadata: FileMetadata }> {
  const chunks: FileChunk[] = [];
  const arriving = streamFile(stream, signal);
  for (;;) {
    const next = await arriving.next();
    if (!next.done) chunks.push(next.value);
    else if (next.value.isBinary) return { content: joinBytes(chunks as Uint8Array[]), metadata: next.value };
    else return { content: chunks.join(""), metadata: next.value };
  }
}

function interrupted(why: string): SandboxError {
  return new SandboxError("OPERATION_INTERRUPTED", `Cannot read the file to its end: ${why}`, {
    suggestion: "Read it again from the start",
  });
}
