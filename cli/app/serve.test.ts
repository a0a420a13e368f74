import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { buffer, text } from "node:stream/consumers";
import { test } from "node:test";
import { until } from "../../test/support/until.ts";
import { send } from "./send.ts";
import { makeServer } from "./serve.ts";
import { Work } from "./work.ts";

/** Requests are passed on to a server that is made by `behind`; gives what a client may connect to. */
async function passing(behind: Server): Promise<AsyncDisposable & { port: number; end: AbortController; work: Work }> {
  behind.listen(0, "127.0.0.1");
  await once(behind, "listening");
  const { port: target } = behind.address() as AddressInfo;
  const end = new AbortController();
  const work = new Work();
  const pass = (request: Request) => {
    const { pathname } = new URL(request.url);
    const { method, headers, body, signal } = request;
    return send(`http://127.0.0.1:${target}${pathname}`, { method, headers, body, signal });
  };
  const server = makeServer({ fetch: pass, work, ending: end.signal });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    end,
    work,
    async [Symbol.asyncDispose]() {
      end.abort();
      for (const each of [server, behind]) {
        each.closeAllConnections();
        each.close();
      }
    },
  };
}

const handshake =
  "GET /x HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

const agreed =
  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3\r\n" +
  "Sec-WebSocket-Extensions: permessage-deflate\r\nAtoll-Secret: x\r\n\r\n";

test("a handshake behind a request that is not answered yet ends that connection; one with early bytes is closed", async () => {
  const behind = createServer((_, response) => void setTimeout(() => response.end("late"), 300));
  behind.on("upgrade", (_, socket) => socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"));
  await using app = await passing(behind);
  const talk = (bytes: string) =>
    new Promise<string>((resolve) => {
      let answer = "";
      const socket = connect(app.port, "127.0.0.1", () => socket.write(bytes));
      socket.on("data", (chunk) => (answer += String(chunk))).on("error", () => {});
      socket.on("close", () => resolve(answer));
    });
  assert.equal(await talk(`GET /x HTTP/1.1\r\nHost: app\r\n\r\n${handshake}`), "");
  assert.match(await talk(`${handshake}early`), /^HTTP\/1\.1 403[^]*no$/);
});

/** A server that agrees to every upgrade, and what becomes of its connections. */
function agreeing(onAgreed: (socket: Socket, request: IncomingMessage) => void): Server {
  const server = createServer();
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    if (head.length > 0) socket.unshift(head);
    socket.on("error", () => {});
    socket.write(agreed);
    onAgreed(socket, request);
  });
  return server;
}

function visit(port: number, first: string): Socket {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => {});
  socket.write(first);
  return socket;
}

/** Whether the other side has closed its end. */
const isLeft = (socket: Socket) => socket.destroyed || socket.readableEnded;

test("what is negotiated passes as it is, bytes too that come at once, and each half closes by itself", async () => {
  let seen: IncomingMessage | undefined;
  const behind = agreeing(async (socket, request) => {
    seen = request;
    const said = await text(socket); // until the visitor's half is closed
    socket.end(`you said ${said}`);
  });
  await using app = await passing(behind);
  const visitor = visit(app.port, `${handshake}early`);
  visitor.end(", and the rest");
  const answer = await text(visitor);
  assert.match(
    answer,
    /^HTTP\/1.1 101 [^]*\r\nSec-WebSocket-Accept: s3\r\nSec-WebSocket-Extensions: permessage-deflate\r\n/,
  );
  assert(answer.endsWith("\r\n\r\nyou said early, and the rest"), answer);
  assert(!answer.includes("Atoll-Secret"));
  assert.equal(seen?.headers["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
  assert.equal(seen?.headers["sec-websocket-extensions"], "permessage-deflate");
});

test("who does not read slows who sends, and gets every byte in the end", async () => {
  const size = 64 * 1024 * 1024;
  let inner: Socket | undefined;
  await using app = await passing(agreeing((socket) => (inner = socket)));
  const visitor = visit(app.port, handshake);
  visitor.pause();
  await until("it has agreed", () => inner);
  const chunk = Buffer.alloc(1024 * 1024, "x");
  let sent = 0;
  let isFull = false;
  const more = () => {
    while (sent < size) {
      sent += chunk.length;
      if (!inner!.write(chunk)) {
        isFull = true;
        return void inner!.once("drain", more);
      }
    }
    inner!.end();
  };
  more();
  // all that is between them holds far less
  await until("it waits", () => isFull && sent < size && inner!.writableNeedDrain);
  const all = await buffer(visitor.resume());
  assert.equal(all.length - all.indexOf("\r\n\r\n") - 4, size);
});

test("a connection that breaks on either side ends the other; the end of the app ends both", async () => {
  const inners: Socket[] = [];
  await using app = await passing(agreeing((socket) => inners.push(socket.resume())));
  const opened = async () => {
    const visitor = visit(app.port, handshake);
    await once(visitor, "data");
    return [visitor.resume(), inners.at(-1)!] as const;
  };
  const [visitor, inner] = await opened();
  visitor.resetAndDestroy();
  await until("the server's end is closed", () => isLeft(inner));
  const [second, secondInner] = await opened();
  secondInner.resetAndDestroy();
  await until("the visitor's end is closed", () => isLeft(second));
  const [third, thirdInner] = await opened();
  app.end.abort();
  await until("both ends are closed", () => isLeft(third) && isLeft(thirdInner));
  await app.work.done();
});

test("a visitor that goes before the server has agreed leaves nothing behind", async () => {
  let asked: Socket | undefined;
  const behind = createServer();
  behind.on("upgrade", (_: IncomingMessage, socket: Socket) => {
    socket.on("error", () => {});
    asked = socket.resume();
  });
  await using app = await passing(behind);
  const visitor = visit(app.port, handshake);
  await until("the server was asked", () => asked);
  visitor.resetAndDestroy();
  await until("the server is left", () => isLeft(asked!));
  await app.work.done();
});

test("what is passed on comes back as it was sent: packed, in pieces, and cut where it was cut", async () => {
  const behind = createServer(async (request, response) => {
    switch (request.url ?? "") {
      case "/packed":
        return void response.writeHead(200, { "content-encoding": "gzip" }).end("as if packed");
      case "/cut":
        return void response.writeHead(200, { "content-length": 100 }).write("half", () => request.socket.destroy());
      case "/moved":
        return void response.writeHead(307, { location: "/elsewhere" }).end();
      default:
        response.end(await text(request));
    }
  });
  await using app = await passing(behind);
  const ask = async (path: string, rest = "\r\n") =>
    text(visit(app.port, `POST ${path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n${rest}`));
  assert.match(await ask("/packed"), /\r\ncontent-encoding: gzip\r\n[^]*as if packed$/);
  assert.match(await ask("/moved"), /^HTTP\/1.1 307 [^]*\r\nlocation: \/elsewhere\r\n/);
  assert.match(await ask("/echo", "Content-Length: 5\r\n\r\nthere"), /\r\n\r\nthere$/);
  const cut = await ask("/cut");
  assert(cut.includes("half") && /content-length: 100/.test(cut), cut);
});
