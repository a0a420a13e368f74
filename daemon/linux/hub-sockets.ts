import { closeSync, rmSync } from "node:fs";
import { libc, must } from "./libc.ts";
import { inNamespace } from "./namespace.ts";

/** Descriptors of listening sockets, close-on-exec; whoever holds them closes them. */
export type HubSockets = {
  /** TCP on proxyPort: takes connections to *any* address that the hub's rules hand over. */
  proxy: number;
  dnsUdp: number;
  dnsTcp: number;
};

/**
 * Makes the gateway's three listening sockets inside a network namespace, whose loopback must have `address`.
 * Everything happens synchronously on this thread, which is back in its own namespace when the call returns.
 * Throws an Error with the errno's name as its `code` when a socket cannot be made; nothing is left open then.
 */
export function openHubSockets(netnsPath: string, address: string, proxyPort: number): HubSockets {
  return inNamespace("net", netnsPath, () => {
    const made: number[] = [];
    try {
      const listen = (type: number, port: number, transparent: boolean) => {
        const fd = openInet(type, address, port, transparent);
        made.push(fd);
        return fd;
      };
      return {
        proxy: listen(SOCK_STREAM, proxyPort, true),
        dnsUdp: listen(SOCK_DGRAM, dnsPort, false),
        dnsTcp: listen(SOCK_STREAM, dnsPort, false),
      };
    } catch (error) {
      for (const fd of made) closeSync(fd);
      throw error;
    }
  });
}

/**
 * Makes a listening unix socket at `path` (at most 107 bytes; an older socket there is replaced) and gives its descriptor,
 * to be inherited by a child. Who may connect is the matter of the directory it lies in.
 */
export function listenUnix(path: string): number {
  const sockaddr = Buffer.alloc(110);
  if (Buffer.byteLength(path) > 107)
    throw new Error(`Cannot listen at "${path}": the path is longer than a unix socket allows`);
  sockaddr.writeUInt16LE(AF_UNIX, 0);
  sockaddr.write(path, 2);
  rmSync(path, { force: true });
  return opened(calls.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), `listen at ${path}`, (fd) => [
    () => calls.bind(fd, sockaddr, sockaddr.length),
    () => calls.listen(fd, 128),
  ]);
}

function openInet(type: number, address: string, port: number, transparent: boolean): number {
  const sockaddr = Buffer.alloc(16);
  sockaddr.writeUInt16LE(AF_INET, 0);
  sockaddr.writeUInt16BE(port, 2);
  sockaddr.set(address.split(".").map(Number), 4);
  const one = Buffer.from([1, 0, 0, 0]);
  return opened(calls.socket(AF_INET, type | SOCK_CLOEXEC, 0), `listen at ${address}:${port}`, (fd) => [
    // A gateway that died leaves connections in TIME_WAIT; without this its successor could not bind for a minute.
    () => (type === SOCK_STREAM ? calls.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, one, one.length) : 0),
    // The kernel hands TPROXY connections only to a listener that has this flag; it stays with the descriptor.
    () => (transparent ? calls.setsockopt(fd, SOL_IP, IP_TRANSPARENT, one, one.length) : 0),
    () => calls.bind(fd, sockaddr, sockaddr.length),
    () => (type === SOCK_STREAM ? calls.listen(fd, backlog) : 0),
  ]);
}

/** Runs the steps on a fresh descriptor, and closes it when one of them fails. */
function opened(fd: number, what: string, steps: (fd: number) => (() => number)[]): number {
  must(fd, what);
  try {
    for (const step of steps(fd)) must(step(), what);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

const calls = {
  socket: libc.func("int socket(int domain, int type, int protocol)") as (d: number, t: number, p: number) => number,
  bind: libc.func("int bind(int fd, const uint8_t *address, uint32_t length)") as Address,
  listen: libc.func("int listen(int fd, int backlog)") as (fd: number, backlog: number) => number,
  setsockopt: libc.func("int setsockopt(int fd, int level, int name, const uint8_t *value, uint32_t length)") as Option,
};
type Address = (fd: number, address: Buffer, length: number) => number;
type Option = (fd: number, level: number, name: number, value: Buffer, length: number) => number;

const dnsPort = 53;
/** As many connections as one flood limit lets through at once (nft's burst), for a few sandboxes at the same time. */
const backlog = 4096;

const AF_UNIX = 1;
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SOL_IP = 0;
const IP_TRANSPARENT = 19;
