import type { RawBody } from "../protocol/verbs.ts";

const encoder = new TextEncoder();

export function textToBytes(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text);
}

/** Node and Bun have it, and it is ten times as fast as atob. */
type NodeBuffer = {
  from(bytes: ArrayBufferLike, start: number, length: number): { toString(encoding: "base64"): string };
  from(text: string, encoding: "base64"): Uint8Array;
};
const { Buffer: nodeBuffer } = globalThis as { Buffer?: NodeBuffer };

/** Throws where `text` is not base64 (not in Node, which reads what it can). */
export function base64ToBytes(text: string): Uint8Array<ArrayBuffer> {
  if (nodeBuffer) return new Uint8Array(nodeBuffer.from(text, "base64")); // a copy: a Buffer may be part of a shared pool
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** `String.fromCharCode` takes its input as arguments, of which some engines allow about 65,000. */
const sliceBytes = 32_768;

export function bytesToBase64(bytes: Uint8Array): string {
  if (nodeBuffer) return nodeBuffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
  let text = "";
  for (let at = 0; at < bytes.length; at += sliceBytes) {
    text += String.fromCharCode(...bytes.subarray(at, at + sliceBytes));
  }
  return btoa(text);
}

export function joinBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** What can be sent as bytes: text as UTF-8. */
export type Content = RawBody;

/**
 * `content` as fetch can send it here. Browsers cannot send a stream over HTTP/1.1, so there it is collected first;
 * everywhere else it is sent as it comes.
 */
export async function sendable(content: Content): Promise<Content> {
  if (!(content instanceof ReadableStream) || !isBrowser()) return content;
  return new Response(content as ReadableStream<Uint8Array<ArrayBuffer>>).blob();
}

function isBrowser(): boolean {
  const { navigator } = globalThis as { navigator?: { userAgent?: string } };
  return navigator?.userAgent?.startsWith("Mozilla/") ?? false;
}
