import { connect, type Socket } from "node:net";

/** What is asked again and again, each connection one request after the other. */
export type Load = { address: string; port: number; host: string; path: string; connections: number; seconds: number };

/** Requests per second, and the milliseconds that each took. */
export type Loaded = { perSecond: number; latencyMs: number[] };

/** Connections and caches of everybody on the way are warm after this. */
const warmSeconds = 0.3;

// A program of its own, so that who measures takes nothing from what is measured: node http-load.ts LOAD prints LOADED.
process.stdout.write(JSON.stringify(await load(JSON.parse(process.argv[2] ?? "") as Load)));

async function load({ address, port, host, path, connections, seconds }: Load): Promise<Loaded> {
  const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n`;
  const sockets = await Promise.all(Array.from({ length: connections }, () => open(address, port)));
  const beginsMs = performance.now() + warmSeconds * 1_000;
  const endsMs = beginsMs + seconds * 1_000;
  const latencyMs: number[] = [];
  await Promise.all(
    sockets.map(async (socket) => {
      for (;;) {
        const askedMs = performance.now();
        await ask(socket, request);
        const nowMs = performance.now();
        if (nowMs > endsMs) return void socket.destroy();
        if (askedMs >= beginsMs) latencyMs.push(nowMs - askedMs);
      }
    }),
  );
  return { perSecond: latencyMs.length / seconds, latencyMs };
}

function open(address: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port, noDelay: true }, () => resolve(socket));
    socket.once("error", reject);
  });
}

/** One request and its whole answer, of which only the length is read: whoever measures is to be quick. */
function ask(socket: Socket, request: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let left: number | undefined;
    const onData = (chunk: Buffer) => {
      if (left === undefined) {
        const end = chunk.indexOf("\r\n\r\n");
        const head = chunk.toString("latin1", 0, Math.max(0, end));
        const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
        if (end < 0 || !head.startsWith("HTTP/1.1 200") || length === undefined) {
          return reject(new Error(`Cannot measure: not the answer that was expected: ${head.slice(0, 1_000)}`));
        }
        left = Number(length) + end + 4;
      }
      left -= chunk.length;
      if (left > 0) return;
      settle();
      resolve();
    };
    const onEnd = () => reject(new Error("Cannot measure: the connection was closed"));
    const settle = () => void socket.off("data", onData).off("error", reject).off("close", onEnd);
    socket.on("data", onData).on("error", reject).on("close", onEnd);
    socket.write(request, "latin1");
  });
}
