import assert from "node:assert/strict";
import { decode, encode, type DecodedPacket, type Packet } from "dns-packet";
import fc from "fast-check";
import { test } from "node:test";
import { answerDns, refuseDns, type DnsSource } from "./dns.ts";
import { NamesFull } from "./names.ts";
import { decide } from "./policy.ts";
import type { Lookup } from "./resolver.ts";

const world: Record<string, Lookup> = {
  "here.example": { kind: "addresses", addresses: ["203.0.113.1"] },
  "empty.example": { kind: "empty" },
  "broken.example": { kind: "failed", why: "ESERVFAIL" },
  "full.example": { kind: "addresses", addresses: ["203.0.113.2"] },
};
const asked: string[] = [];
const source: DnsSource = {
  decide: (host) => decide({ host, protocol: "dns", named: false }),
  addressOf: (host) => (host === "full.example" ? Promise.reject(new NamesFull()) : Promise.resolve("198.19.0.7")),
  lookup: (host) => {
    asked.push(host);
    return Promise.resolve(world[host] ?? { kind: "missing" });
  },
  records: (host, type) => {
    asked.push(host);
    if (type !== "TXT" || host !== "here.example") return Promise.resolve({ kind: "empty" });
    const data = Array.from({ length: 8 }, () => Buffer.alloc(200, "x"));
    return Promise.resolve({ kind: "records", records: [{ type, name: host, ttl: 60, data }] });
  },
};

const query = (name: string, type: string, more: Partial<Packet> = {}) =>
  encode({ type: "query", id: 77, flags: 256, questions: [{ name, type: type as "A" }], ...more });
const rcode = (reply: Buffer | undefined) => reply![3]! & 15;
const ask = async (name: string, type = "A", udp = true): Promise<DecodedPacket & { code: number; bytes: number }> => {
  const reply = await answerDns(query(name, type), source, udp);
  return Object.assign(decode(reply!), { code: rcode(reply), bytes: reply!.length });
};
const edns = { type: "OPT", name: ".", udpPayloadSize: 4096, flags: 0, options: [] } as never;

test("a name that exists has its synthetic address and no IPv6 one", async () => {
  const a = await ask("HERE.example");
  assert.equal(a.code, 0);
  assert.equal(a.id, 77);
  assert.deepEqual(
    a.answers?.map((answer) => [answer.name, "data" in answer && answer.data]),
    [["HERE.example", "198.19.0.7"]],
  );
  const aaaa = await ask("here.example", "AAAA");
  assert.deepEqual([aaaa.code, aaaa.answers], [0, []]);
});

test("what is not there, is empty or fails outside is so inside", async () => {
  for (const type of ["A", "AAAA"]) {
    assert.equal((await ask("none.example", type)).code, 3);
    assert.deepEqual([(await ask("empty.example", type)).code, (await ask("empty.example", type)).answers], [0, []]);
    assert.equal((await ask("broken.example", type)).code, 2);
  }
});

test("a sandbox without names left is refused", async () => {
  assert.equal((await ask("full.example")).code, 5);
});

test("a name that policy refuses does not exist, and nobody is asked", async () => {
  asked.length = 0;
  for (const name of ["wpad", "localhost", "printer.local", "4.4.8.8.in-addr.arpa", "."])
    for (const type of ["A", "AAAA", "TXT", "PTR"]) assert.equal((await ask(name, type)).code, 3, name);
  assert.deepEqual(asked, []);
});

test("HTTPS and SVCB are empty: they carry addresses and hide names", async () => {
  for (const type of ["HTTPS", "SVCB", "UNKNOWN_65"]) {
    const reply = await answerDns(query("here.example", type), source, true);
    assert.deepEqual([rcode(reply), reply!.readUInt16BE(6)], [0, 0], type);
  }
});

test("an answer too long for UDP is cut, and whole over TCP", async () => {
  const udp = await ask("here.example", "TXT");
  assert.deepEqual([udp.flag_tc, udp.answers?.length], [true, 0]);
  const tcp = await ask("here.example", "TXT", false);
  assert.deepEqual([tcp.flag_tc, tcp.answers?.length], [false, 1]);
  const large = await answerDns(query("here.example", "TXT", { additionals: [edns] }), source, true);
  assert.ok(large!.length <= 1232, "no fragments even when the asker would take them");
});

test("EDNS is answered with EDNS", async () => {
  const reply = decode((await answerDns(query("here.example", "A", { additionals: [edns] }), source, true))!);
  assert.equal(reply.additionals?.[0]?.type, "OPT");
});

test("messages that are no query get an error or silence", async () => {
  const good = query("here.example", "A");
  assert.equal(await answerDns(good.subarray(0, 11), source, true), undefined);
  const reply = Buffer.from(good);
  reply[2]! |= 0x80;
  assert.equal(await answerDns(reply, source, true), undefined);
  assert.equal(refuseDns(reply), undefined);
  const notify = Buffer.from(good);
  notify[2] = 4 << 3;
  assert.equal(rcode(await answerDns(notify, source, true)), 4);
  assert.equal(rcode(await answerDns(good.subarray(0, 20), source, true)), 1);
  for (const offset of [5, 7, 9, 11]) {
    const crowded = Buffer.from(good);
    crowded[offset] = 9;
    assert.equal(rcode(await answerDns(crowded, source, true)), 1);
  }
  assert.equal(rcode(refuseDns(good)), 5);
});

test("no bytes whatever make it throw, hang or answer with more than a reply", async () => {
  const header = fc.uint8Array({ minLength: 12, maxLength: 12 });
  const mutated = fc
    .tuple(fc.uint8Array({ maxLength: 40 }), fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 6 }))
    .map(([tail, edits]) => {
      const message = Buffer.concat([query("here.example", "A", { additionals: [edns] }), tail]);
      for (const [at, byte] of edits) message[at % message.length] = byte;
      return message;
    });
  const raw = fc.tuple(header, fc.uint8Array({ maxLength: 600 })).map((parts) => Buffer.concat(parts));
  await fc.assert(
    fc.asyncProperty(fc.oneof(mutated, raw, fc.uint8Array().map(Buffer.from)), fc.boolean(), async (message, udp) => {
      const reply = await answerDns(message, source, udp);
      if (!reply) return;
      assert.ok(reply.length >= 12 && reply.length <= (udp ? 1232 : 65_535));
      assert.equal(reply.readUInt16BE(0), message.readUInt16BE(0));
      assert.ok(reply[2]! & 0x80);
    }),
    { numRuns: 2_000 },
  );
});
