import assert from "node:assert/strict";
import { once } from "node:events";
import type { RequestListener } from "node:http";
import { connect } from "node:net";
import { test } from "node:test";
import { type Listening, listenTcp } from "./listen.ts";

const refusing = () =>
  listenTcp(
    {
      request: (_, response) =>
        void response.writeHead(413, { connection: "close", "content-length": 8 }).end("too much"),
      wantsUpgrade: () => false,
      upgrade() {},
    },
    "127.0.0.1",
    0,
  );

/** Sends a request of so many bytes and only then looks at the answer, as many programs do. Throws what happened to it. */
async function send({ port }: Listening, bytes: number): Promise<string> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const closed = once(socket, "close");
  closed.catch(() => {}); // awaited below
  socket.write(`POST / HTTP/1.1\r\nhost: a\r\ncontent-length: ${bytes}\r\n\r\n`);
  const chunk = Buffer.alloc(64 * 1024);
  for (let sent = 0; sent < bytes; sent += chunk.length)
    if (!socket.write(chunk)) await Promise.race([once(socket, "drain"), closed]);
  socket.end();
  let answer = "";
  socket.setEncoding("latin1").on("data", (text: string) => (answer += text));
  await closed;
  return answer;
}

test("a refusal arrives though the body was still on its way", async () => {
  await using server = await refusing();
  assert.match(await send(server, 10_000_000), /413[^]*too much$/);
});

test("who does not stop sending is cut off", async () => {
  await using server = await refusing();
  await assert.rejects(send(server, 1e15), { code: /^(ECONNRESET|EPIPE)$/ });
});

test("chunks of a byte are read as few pieces, and every one of them", async () => {
  const text = "abcdefghij".repeat(5_000);
  let pieces = 0;
  let read = "";
  const request: RequestListener = (asked, response) => {
    asked
      .on("end", () => response.end())
      .on("data", (piece: Buffer) => {
        read += String(piece);
        if (++pieces % 4 > 0) return;
        asked.pause(); // the rest is held back meanwhile
        setTimeout(() => asked.resume(), 5);
      });
  };
  await using server = await listenTcp({ request, wantsUpgrade: () => false, upgrade() {} }, "127.0.0.1", 0);
  const socket = connect(server.port, "127.0.0.1").resume();
  socket.write("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
  socket.write(`${text.replace(/./g, "1\r\n$&\r\n")}0\r\n\r\n`);
  await once(socket, "close");
  assert(read === text, `${read.length} of ${text.length} bytes`);
  assert(pieces < text.length / 100, `${pieces} pieces`);
});
