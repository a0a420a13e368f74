import { createHold } from "./hold.ts";
import type { Finding } from "./inspect.ts";

/** Whether a stream that begins so speaks TLS: any record type with major version 3; undefined: too short to say. */
export function beginsTls(bytes: Buffer): boolean | undefined {
  if (bytes.length === 0) return undefined;
  if (bytes[0]! < changeCipherSpec || bytes[0]! > heartbeat) return false;
  return bytes.length < 2 ? undefined : bytes[1] === 3;
}

/**
 * Reads what a TLS client sends (RFC 8446, 6066), record by record, until what follows is encrypted. The server name of
 * every ClientHello must be `host`: after a HelloRetryRequest there is a second one, and servers heed the name in it. A
 * hello may be spread over several records. One without a server name passes: it claims nothing.
 */
export function createTlsReader(host: string): (bytes: Buffer) => Finding {
  /** How much of the bytes given has been read; they begin with this again until it is passed. */
  let read = 0;
  /** Of a hello, what its records have brought so far. */
  const hello = createHold();
  let greeted = false;

  const refuse = (why: string): Finding => ({ kind: "refuse", why });
  const readBody = (type: number, body: Buffer): Finding | undefined => {
    if (!greeted && type !== handshakeType) return refuse("it is TLS that does not begin with a ClientHello");
    if (hello.size > 0 && type !== handshakeType) return refuse("its ClientHello is interrupted");
    // In between two hellos: the empty change of ciphers that TLS 1.3 sends for old middleboxes, and warnings.
    if (type === changeCipherSpec || type === alert) return undefined;
    if (type !== handshakeType) return { kind: "pass", bytes: read, then: "raw" };
    if (body.length === 0) return refuse("it has an empty TLS handshake record");
    if (greeted && hello.size === 0 && !looksLikeHello(body)) return { kind: "pass", bytes: read, then: "raw" };
    hello.add(body);
    const handshake = hello.bytes;
    if (handshake[0] !== clientHello) return refuse("it is TLS that does not begin with a ClientHello");
    if (handshake.length < 4) return undefined;
    const length = 4 + handshake.readUIntBE(1, 3);
    if (handshake.length < length) return undefined;
    if (handshake.length > length) return refuse("there is something behind its ClientHello");
    const server = readServerName(handshake.subarray(4));
    if (server === malformed) return refuse("its ClientHello cannot be read");
    if (server !== undefined && server.replace(/\.$/, "") !== host) return refuse(`its TLS server name is "${server}"`);
    hello.take(length);
    greeted = true;
    return { kind: "pass", bytes: read };
  };

  return (bytes) => {
    for (;;) {
      if (bytes.length < read + recordHeaderBytes) return { kind: "more" };
      const start = read + recordHeaderBytes;
      const end = start + bytes.readUInt16BE(read + 3);
      if (bytes[read + 1] !== 3) return refuse("it has a TLS record of no known version");
      if (bytes.length < end) return { kind: "more" };
      const type = bytes[read]!;
      read = end;
      const finding = readBody(type, bytes.subarray(start, end));
      if (!finding) continue;
      read = 0;
      return finding;
    }
  };
}

/** What follows a finished hello is either another one or the client's keys, possibly encrypted, hence random. */
function looksLikeHello(body: Buffer): boolean {
  const pattern = [clientHello, 0, undefined, undefined, 3, 3];
  return pattern.every((byte, index) => byte === undefined || body[index] === undefined || body[index] === byte);
}

const malformed = Symbol("malformed");

/** The host name of a ClientHello's body, lower case; undefined when it has none. */
function readServerName(hello: Buffer): string | undefined | typeof malformed {
  try {
    let at = 2 + 32;
    at += 1 + hello.readUInt8(at);
    at += 2 + hello.readUInt16BE(at);
    at += 1 + hello.readUInt8(at);
    if (at === hello.length) return undefined;
    const end = at + 2 + hello.readUInt16BE(at);
    if (end !== hello.length) return malformed;
    at += 2;
    let found: string | undefined;
    while (at < end) {
      const type = hello.readUInt16BE(at);
      const length = hello.readUInt16BE(at + 2);
      at += 4 + length;
      if (at > end) return malformed;
      if (type !== serverNameExtension) continue;
      if (found !== undefined) return malformed;
      const name = readNameList(hello.subarray(at - length, at));
      if (name === undefined) return malformed;
      found = name;
    }
    return found;
  } catch (error) {
    if (error instanceof RangeError) return malformed;
    throw error;
  }
}

/** RFC 6066 section 3: a list with exactly one name, of type host_name. */
function readNameList(list: Buffer): string | undefined {
  if (list.length < 6 || list.readUInt16BE(0) !== list.length - 2 || list[2] !== 0) return undefined;
  if (list.readUInt16BE(3) !== list.length - 5) return undefined;
  const name = list.toString("latin1", 5).toLowerCase();
  return /^[\x21-\x7e]+$/.test(name) ? name : undefined;
}

const recordHeaderBytes = 5;
const changeCipherSpec = 0x14;
const alert = 0x15;
const handshakeType = 0x16;
const heartbeat = 0x18;
const clientHello = 1;
const serverNameExtension = 0;
