import { decode, encode, type Answer, type DecodedPacket, type OptAnswer, type Question } from "dns-packet";
import { NamesFull } from "./names.ts";
import type { Decision } from "./policy.ts";
import { defaultTtl, forwardedTypes, type ForwardedType, type Lookup, type Records } from "./resolver.ts";

/** What an answer is made of; bound to the sandbox that asks. */
export type DnsSource = {
  decide(host: string): Decision;
  /** The name's synthetic address. */
  addressOf(host: string): Promise<string>;
  lookup(host: string): Promise<Lookup>;
  records(host: string, type: ForwardedType): Promise<Records>;
};

/**
 * Answers one DNS message as it came from a sandbox, whatever its bytes are. Gives the reply's bytes, or undefined for what
 * deserves none (too short, or itself a reply). `udp` cuts the reply to what the asker can take and sets TC.
 *
 * A gives the name's own synthetic address when the name really has an address; AAAA is empty then, so that no program
 * tries IPv6. A name that policy refuses does not exist, and no query leaves. What does not exist outside does not exist
 * inside either, and a failure is told as SERVFAIL.
 */
export async function answerDns(message: Buffer, source: DnsSource, udp: boolean): Promise<Buffer | undefined> {
  if (message.length < headerBytes || message[2]! & 0x80) return undefined;
  const query = parse(message);
  if (!query) return bare(message, FORMERR);
  if ((message[2]! & 0x78) !== 0) return bare(message, NOTIMP);
  const { question } = query;
  const { rcode, answers } = await resolve(question, source).catch((error: unknown) => ({
    rcode: error instanceof NamesFull ? REFUSED : SERVFAIL,
    answers: [],
  }));
  return write(message, query, rcode, answers, udp);
}

/** A refusal of everything, for a message from nobody we know. */
export function refuseDns(message: Buffer): Buffer | undefined {
  return message.length < headerBytes || message[2]! & 0x80 ? undefined : bare(message, REFUSED);
}

async function resolve(question: Question, source: DnsSource): Promise<{ rcode: number; answers: Answer[] }> {
  const host = question.name.toLowerCase().replace(/\.$/, "");
  const type: string = question.type;
  if (question.class !== "IN") return { rcode: REFUSED, answers: [] };
  if (!source.decide(host).allow) return { rcode: NXDOMAIN, answers: [] };
  if (isForwarded(type)) {
    const found = await source.records(host, type);
    if (found.kind !== "records") return { rcode: rcodes[found.kind], answers: [] };
    // The asker's own spelling of the name: some compare it.
    return { rcode: NOERROR, answers: found.records.map((record) => ({ ...record, name: question.name })) };
  }
  const found = await source.lookup(host);
  if (found.kind !== "addresses") return { rcode: rcodes[found.kind], answers: [] };
  if (type !== "A" && type !== "ANY") return { rcode: NOERROR, answers: [] };
  const data = await source.addressOf(host);
  return { rcode: NOERROR, answers: [{ type: "A", class: "IN", name: question.name, ttl: defaultTtl, data }] };
}

function isForwarded(type: string): type is ForwardedType {
  return (forwardedTypes as readonly string[]).includes(type);
}

type Query = { question: Question; payloadBytes: number; edns: boolean };

/** Exactly one question and at most what EDNS and a signature add: decoding stays cheap whatever is sent. */
function parse(message: Buffer): Query | undefined {
  const counts = [4, 6, 8, 10].map((offset) => message.readUInt16BE(offset));
  if (counts[0] !== 1 || counts[1] !== 0 || counts[2] !== 0 || counts[3]! > 2) return undefined;
  let packet: DecodedPacket;
  try {
    packet = decode(message);
  } catch {
    return undefined;
  }
  const question = packet.questions?.[0];
  if (!question) return undefined;
  const opt = packet.additionals?.find((record): record is OptAnswer => record.type === "OPT");
  const wanted = opt?.udpPayloadSize ?? 512;
  return { question, edns: opt !== undefined, payloadBytes: Math.max(512, Math.min(wanted, udpLimitBytes)) };
}

/** What passes every link without fragments (DNS flag day 2020). */
const udpLimitBytes = 1_232;

function write(message: Buffer, query: Query, rcode: number, answers: Answer[], udp: boolean): Buffer {
  const reply = (records: Answer[], truncated: boolean) =>
    encode({
      type: "response",
      id: message.readUInt16BE(0),
      flags: (message[2]! & 1 ? RD : 0) | RA | (truncated ? TC : 0) | rcode,
      questions: [query.question],
      answers: records,
      additionals: query.edns ? [opt] : [],
    });
  try {
    const whole = reply(answers, false);
    if (whole.length <= (udp ? query.payloadBytes : tcpLimitBytes)) return whole;
    return reply([], true);
  } catch {
    // A question that can be read but not written again, such as one of a type without a number.
    return bare(message, NOTIMP);
  }
}

const tcpLimitBytes = 65_535;
const opt: OptAnswer = {
  type: "OPT",
  name: ".",
  udpPayloadSize: udpLimitBytes,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
};

/** A reply that is only a header: what could not be read is not repeated. */
function bare(message: Buffer, rcode: number): Buffer {
  const reply = Buffer.alloc(headerBytes);
  message.copy(reply, 0, 0, 2);
  reply[2] = 0x80 | (message[2]! & 0x79);
  reply[3] = 0x80 | rcode;
  return reply;
}

const headerBytes = 12;
const TC = 1 << 9;
const RD = 1 << 8;
const RA = 1 << 7;
const NOERROR = 0;
const FORMERR = 1;
const SERVFAIL = 2;
const NXDOMAIN = 3;
const NOTIMP = 4;
const REFUSED = 5;
const rcodes = { empty: NOERROR, missing: NXDOMAIN, failed: SERVFAIL };
