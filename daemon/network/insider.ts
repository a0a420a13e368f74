import { decode, encode, type DecodedPacket } from "dns-packet";
import koffi from "koffi";
import dgram from "node:dgram";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import { createInterface } from "node:readline";
import tls from "node:tls";

/** For tests, run in a sandbox's network namespace: does what it is told on standard input, with these tools. */
const inside = {
  ...{ net, tls, http, dgram, os, once },

  /** The answer's rcode and data, asked of `server` by UDP. */
  async dns(name: string, type = "A", server = "198.18.0.1"): Promise<{ rcode: number; data: unknown[] } | string> {
    const socket = dgram.createSocket("udp4");
    try {
      socket.connect(53, server);
      await once(socket, "connect");
      socket.send(encode({ type: "query", id: 1, flags: 256, questions: [{ name, type: type as "A" }] }));
      const [message] = (await once(socket, "message", { signal: AbortSignal.timeout(5_000) })) as [Buffer];
      const reply: DecodedPacket = decode(message);
      return { rcode: message[3]! & 15, data: (reply.answers ?? []).map((answer) => "data" in answer && answer.data) };
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? (error as Error).name;
    } finally {
      socket.close();
    }
  },

  async addressOf(name: string): Promise<string> {
    const answer = await inside.dns(name);
    if (typeof answer === "string" || typeof answer.data[0] !== "string")
      throw new Error(`no address: ${JSON.stringify(answer)}`);
    return answer.data[0];
  },

  /** Sends `text` (latin1) and gives all that comes until the end, or the error's code; connecting alone when it is "". */
  async tcp(address: string, port: number, text = ""): Promise<string> {
    const socket = net.connect({ host: address, port, allowHalfOpen: true });
    socket.setTimeout(5_000, () => socket.destroy(Object.assign(new Error(), { code: "TIMEOUT" })));
    let came = "";
    socket.setEncoding("latin1").on("data", (chunk: string) => (came += chunk));
    try {
      await once(socket, "connect");
      if (text === "") return "connected";
      socket.write(text, "latin1");
      await once(socket, "end");
      return came;
    } catch (error) {
      return came + (error as NodeJS.ErrnoException).code;
    } finally {
      socket.destroy();
    }
  },

  /** GET by name, as a program would: resolve, connect, ask with that Host. */
  async get(name: string, port: number, host = name): Promise<string> {
    const text = `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
    return await inside.tcp(await inside.addressOf(name), port, text);
  },

  /** A UDP datagram; gives the error's code, or "silence" after 200 ms without one. */
  async udp(address: string, port: number): Promise<string> {
    const socket = dgram.createSocket(address.includes(":") ? "udp6" : "udp4");
    try {
      socket.connect(port, address);
      await once(socket, "connect");
      socket.send("hello");
      await once(socket, "message", { signal: AbortSignal.timeout(200) });
      return "answer";
    } catch (error) {
      const { code, name } = error as NodeJS.ErrnoException;
      return name === "AbortError" ? "silence" : (code ?? name);
    } finally {
      socket.close();
    }
  },

  /** Puts a whole Ethernet frame (hex) on eth0. */
  frame(hex: string): number {
    const bytes = Buffer.from(hex, "hex");
    const fd = libc.socket(17, 3, 0);
    const address = Buffer.alloc(20);
    address.writeUInt16LE(17, 0);
    address.writeInt32LE(libc.ifIndex("eth0"), 4);
    const sent = libc.sendto(fd, bytes, bytes.length, 0, address, address.length);
    libc.close(fd);
    return sent;
  },
};
export type Inside = typeof inside;

const self = koffi.load(null);
const libc = {
  socket: self.func("int socket(int, int, int)") as (...numbers: number[]) => number,
  close: self.func("int close(int)") as (fd: number) => number,
  ifIndex: self.func("uint32_t if_nametoindex(const char *)") as (name: string) => number,
  sendto: self.func("int64_t sendto(int, const uint8_t *, size_t, int, const uint8_t *, uint32_t)") as (
    ...args: [number, Buffer, number, number, Buffer, number]
  ) => number,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { source, input } = JSON.parse(line) as { source: string; input: unknown };
  // oxlint-disable-next-line typescript/no-implied-eval -- what it is told comes from the test
  const work = new Function(`return (${source})`)() as (inside: Inside, input: unknown) => unknown;
  const answer = await Promise.resolve()
    .then(() => work(inside, input))
    .then(
      (result) => ({ result: result ?? null }),
      (error: Error) => ({ error: error.message }),
    );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
