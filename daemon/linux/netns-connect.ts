import { closeSync } from "node:fs";
import { type OnReadOpts, Socket } from "node:net";
import koffi from "koffi";
import { inNamespace } from "./namespace.ts";
import { libc } from "./libc.ts";

/** Also what the kernel may keep of a connection for a peer that does not read. More makes nothing faster on a loopback. */
const bufferBytes = 256 * 1024;

/** What all connections with an `onRead` read into: a buffer for each piece would be most of what a small answer costs. */
const readBuffer = Buffer.allocUnsafeSlow(64 * 1024);

/**
 * A TCP connection to a port of the loopback in a network namespace, which is not left for it: only the socket is born there.
 * Undefined when it is not had at once, because nobody listens, whoever listens takes no more callers, or the namespace has
 * gone. With `onRead` what is read is given to that instead of "data"; the chunk is valid until it returns.
 */
export function connectInNetns(
  netnsPath: string,
  address: "127.0.0.1" | "::1",
  port: number,
  onRead?: (chunk: Buffer) => void,
): Socket | undefined {
  const ipv6 = address === "::1";
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  let fd: number;
  try {
    fd = inNamespace("net", netnsPath, () => calls.socket(ipv6 ? AF_INET6 : AF_INET, type, IPPROTO_TCP));
  } catch {
    return undefined; // a run that ends takes its namespace along; its agent will say so
  }
  if (fd < 0) return undefined;
  try {
    const size = Buffer.alloc(4);
    size.writeInt32LE(bufferBytes);
    for (const name of [SO_SNDBUF, SO_RCVBUF]) calls.setsockopt(fd, SOL_SOCKET, name, size, size.length);
    const target = ipv6 ? inet6(port) : inet(port);
    if (connects(fd, target) && !isItself(fd, target)) {
      return new Socket({ fd, ...(onRead && { onread: intoReadBuffer(onRead) }) }).setNoDelay(true);
    }
  } catch {
    // no descriptor is to be had for it: the other way says so
  }
  closeSync(fd);
  return undefined;
}

function intoReadBuffer(onRead: (chunk: Buffer) => void): OnReadOpts {
  const callback = (bytes: number) => {
    onRead(readBuffer.subarray(0, bytes));
    return true;
  };
  return { buffer: readBuffer, callback };
}

/**
 * On a loopback the three packets have passed when connect(2) returns, but it says EINPROGRESS all the same: the result is
 * what a second call says.
 */
function connects(fd: number, address: Buffer): boolean {
  if (calls.connect(fd, address, address.length) === 0) return true;
  return koffi.errno() === koffi.os.errno["EINPROGRESS"] && calls.connect(fd, address, address.length) === 0;
}

/** Where nobody listens the kernel may choose the very port as the socket's own, which then is connected with itself. */
function isItself(fd: number, target: Buffer): boolean {
  const own = Buffer.alloc(target.length);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(own.length);
  return calls.getsockname(fd, own, length) === 0 && own.equals(target);
}

function inet(port: number): Buffer {
  const sockaddr = Buffer.alloc(16);
  sockaddr.writeUInt16LE(AF_INET, 0);
  sockaddr.writeUInt16BE(port, 2);
  sockaddr.set([127, 0, 0, 1], 4);
  return sockaddr;
}

function inet6(port: number): Buffer {
  const sockaddr = Buffer.alloc(28);
  sockaddr.writeUInt16LE(AF_INET6, 0);
  sockaddr.writeUInt16BE(port, 2);
  sockaddr[23] = 1;
  return sockaddr;
}

const calls = {
  socket: libc.func("int socket(int domain, int type, int protocol)") as (d: number, t: number, p: number) => number,
  connect: libc.func("int connect(int fd, const uint8_t *address, uint32_t length)") as Address,
  getsockname: libc.func("int getsockname(int fd, _Out_ uint8_t *address, _Inout_ uint32_t *length)") as OwnAddress,
  setsockopt: libc.func("int setsockopt(int fd, int level, int name, const uint8_t *value, uint32_t length)") as Option,
};
type Address = (fd: number, address: Buffer, length: number) => number;
type OwnAddress = (fd: number, address: Buffer, length: Buffer) => number;
type Option = (fd: number, level: number, name: number, value: Buffer, length: number) => number;

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_TCP = 6;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
