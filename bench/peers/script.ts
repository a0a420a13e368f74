import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";

/** A program in a terminal: what is typed goes in, what it prints comes out. */
export type Typed = AsyncDisposable & {
  write(text: string): void;
  onOutput(listener: (bytes: Uint8Array) => void): void;
};

/** On the host, in util-linux's `script`: a terminal without a network. */
export function inScript(command: string): Typed {
  const child = start(command);
  return {
    write: (text) => void child.stdin?.write(text),
    onOutput: (listener) => void child.stdout?.on("data", listener),
    [Symbol.asyncDispose]: () => end(child),
  };
}

/** The same behind a WebSocket on loopback: what a web terminal on the host is made of, without a sandbox. */
export async function behindWebSocket(command: string): Promise<Typed> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
  await once(server, "listening");
  const child = start(command);
  server.on("connection", (socket) => {
    socket.on("message", (data: Buffer) => void child.stdin?.write(data));
    child.stdout?.on("data", (bytes: Buffer) => {
      // the terminal waits for the one who looks
      socket.send(bytes, () => socket.bufferedAmount < 1_000_000 && child.stdout?.resume());
      if (socket.bufferedAmount >= 1_000_000) child.stdout?.pause();
    });
  });
  const socket = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  socket.binaryType = "arraybuffer";
  await once(socket, "open");
  return {
    write: (text) => socket.send(text),
    onOutput: (listener) => {
      socket.addEventListener("message", ({ data }) => listener(new Uint8Array(data as ArrayBuffer)));
    },
    async [Symbol.asyncDispose]() {
      await end(child);
      for (const client of server.clients) client.terminate();
      server.close();
    },
  };
}

function start(command: string): ChildProcess {
  return spawn("script", ["--quiet", "--flush", "--return", "--command", command, "/dev/null"], {
    stdio: ["pipe", "pipe", "ignore"],
    env: { PATH: process.env["PATH"], TERM: "xterm-256color", LANG: "C.UTF-8" },
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}
