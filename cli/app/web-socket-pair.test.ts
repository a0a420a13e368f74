import assert from "node:assert/strict";
import { test } from "node:test";
import { hangUp, type PairedSocket, WebSocketPair } from "./web-socket-pair.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** What an end hears, in words. */
function heard(end: PairedSocket): unknown[] {
  const all: unknown[] = [];
  end.addEventListener("message", (event) => all.push((event as MessageEvent).data));
  end.addEventListener("error", (event) => all.push((event as ErrorEvent).message));
  end.addEventListener("close", (event) => {
    const { code, reason, wasClean } = event as CloseEvent;
    all.push(`${code} ${reason} ${wasClean}`);
  });
  return all;
}

test("messages wait until their receiver accepts, and come in order, with the farewell last", async () => {
  const [one, other] = Object.values(new WebSocketPair()) as [PairedSocket, PairedSocket];
  const [byOne, byOther] = [heard(one), heard(other)];
  one.accept();
  one.send("text");
  one.send("");
  one.close(4000, "done");
  await turn();
  assert.deepEqual([byOne, byOther], [["4000 done true"], []]);
  other.accept();
  await turn();
  assert.deepEqual(byOther, ["text", "", "4000 done true"]);
  assert.deepEqual([one.readyState, other.readyState], [3, 3]);
  other.close(); // of no effect
});

test("bytes arrive as a copy, whatever held them", async () => {
  const [one, other] = Object.values(new WebSocketPair()) as [PairedSocket, PairedSocket];
  const all = heard(other);
  one.accept();
  other.accept();
  const bytes = new Uint8Array([1, 2, 3, 4]);
  one.send(bytes.subarray(1, 3));
  one.send(bytes.buffer);
  one.send(new DataView(bytes.buffer, 3));
  bytes.fill(9);
  await turn();
  assert(all.every((data) => data instanceof ArrayBuffer));
  assert.deepEqual(
    all.map((data) => [...new Uint8Array(data as ArrayBuffer)]),
    [[2, 3], [1, 2, 3, 4], [4]],
  );
});

test("what cannot be sent is refused", () => {
  const [one] = Object.values(new WebSocketPair()) as [PairedSocket];
  assert.throws(() => one.send("early"), /accept\(\) was not called/);
  one.accept();
  assert.throws(() => one.send({} as string), /neither text nor bytes/);
  for (const code of [0, 999, 1004, 1005, 1006, 1015, 2999, 5000]) assert.throws(() => one.close(code), TypeError);
  assert.throws(() => one.close(1000, "ü".repeat(62)), /123 bytes/);
  assert.equal(one.readyState, 1);
  one.close();
  assert.throws(() => one.send("late"), /it was closed/);
});

test("a connection that breaks is told to the other end, with its error first, and once", async () => {
  const [one, other] = Object.values(new WebSocketPair()) as [PairedSocket, PairedSocket];
  const all = heard(other);
  other.accept();
  hangUp(one, { code: 1006, wasClean: false }, new Error("it broke"));
  hangUp(one, { code: 1000 });
  await turn();
  assert.deepEqual(all, ["it broke", "1006  false"]);
});
