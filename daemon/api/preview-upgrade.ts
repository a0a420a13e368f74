import { type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { connectToPort } from "../sandbox/visit.ts";
import { toInner, toVisitor } from "./preview-headers.ts";
import { guardInterim, innerHeadBytes, nonsense, type Passage, passBack, toTrouble } from "./preview-relay.ts";

/** Visitors' machines vanish without a word; so often it is asked whether they are there. */
const keepAliveMs = 30_000;

/**
 * Passes a request on that wants another protocol (WebSockets), and when the server agrees, the bytes both ways, each half
 * closed as it ends. Another answer is passed back as one. Throws while nothing has been answered.
 */
export async function relayUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  response: ServerResponse,
  passage: Passage,
): Promise<void> {
  const outcome = await ask(request, socket, passage).catch((error: unknown) => {
    throw toTrouble(error);
  });
  if (outcome.inner === undefined) return passBack(request, outcome.answer, response, passage);
  const { answer, inner } = outcome;
  passage.onAnswer();
  const raw = toVisitor(answer.rawHeaders, 101, passage.shared);
  const protocol = answer.headers.upgrade ?? request.headers.upgrade ?? "";
  const lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", `Upgrade: ${protocol}`];
  for (let at = 0; at < raw.length; at += 2) lines.push(`${raw[at]}: ${raw[at + 1]}`);
  if (lines.some((line) => /[\r\n\0]/.test(line))) {
    inner.destroy();
    throw nonsense("its headers have line breaks");
  }
  response.detachSocket(socket as never);
  socket.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
  await join(socket, inner, () => passage.run.activity.touch());
}

type Outcome = { answer: IncomingMessage; inner?: Duplex };

function ask(
  request: IncomingMessage,
  socket: Duplex,
  { run, port, path, visitor, within }: Passage,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({
      method: "GET",
      path,
      headers: toInner(request.rawHeaders, port, visitor, request.headers.upgrade),
      maxHeaderSize: innerHeadBytes,
      createConnection: (_, done) => {
        connectToPort(run, port, within).then(
          (stream) => done(null, stream),
          (error: Error) => (done as (error: Error) => void)(error),
        );
        return undefined;
      },
    });
    guardInterim(outgoing);
    const onGone = () => outgoing.destroy(new Error("the visitor has gone"));
    socket.once("close", onGone);
    outgoing.once("close", () => socket.off("close", onGone));
    outgoing.on("error", reject);
    outgoing.on("response", (answer) => resolve({ answer }));
    outgoing.on("upgrade", (answer, inner, head) => {
      socket.off("close", onGone);
      inner.allowHalfOpen = true;
      // at once: a stream that has ended meanwhile takes nothing back
      if (head.length > 0) inner.unshift(head);
      resolve({ answer, inner });
    });
    outgoing.end();
  });
}

/** Bytes both ways, each at the pace of its reader. Resolves when both connections are closed. */
function join(visitor: Duplex, inner: Duplex, onBytes: () => void): Promise<void> {
  if ("setKeepAlive" in visitor)
    (visitor as { setKeepAlive(on: boolean, ms: number): void }).setKeepAlive(true, keepAliveMs);
  let open = 2;
  return new Promise((resolve) => {
    for (const [from, to] of [
      [visitor, inner],
      [inner, visitor],
    ] as const) {
      from.on("data", onBytes);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        if (!from.readableEnded || !from.writableFinished) to.destroy();
        if (--open === 0) resolve();
      });
      from.pipe(to);
    }
    // it may have closed before anybody listened
    if (visitor.destroyed) inner.destroy();
    if (inner.destroyed) visitor.destroy();
  });
}
