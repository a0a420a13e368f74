import assert from "node:assert/strict";
import { test } from "node:test";
import { hostScript, hubScript } from "./nft.ts";

const rules = (script: string) =>
  script
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");

test("the hub's rules replace the old ones in one step and end in refusal", () => {
  const lines = rules(hubScript());
  assert.deepEqual(lines.slice(0, 3), ["table inet atoll", "delete table inet atoll", "table inet atoll {"]);
  assert.ok(lines.includes("type filter hook prerouting priority mangle; policy drop;"));
  assert.deepEqual(lines.slice(-5), [
    "meta l4proto tcp reject with tcp reset",
    "update @refusalrate { iifname limit rate over 1000/second burst 1000 packets } drop",
    "reject with icmp admin-prohibited",
    "}",
    "}",
  ]);
});

test("in the hub who speaks is proved before anything is accepted", () => {
  const lines = rules(hubScript());
  const accepted = lines.findIndex((line) => line.endsWith("accept"));
  for (const proof of ['iifname != "hx*" drop', "meta nfproto != ipv4 drop", "fib saddr . iif oif missing drop"])
    assert.ok(lines.indexOf(proof) > 0 && lines.indexOf(proof) < accepted, proof);
  const accepts = lines.filter((line) => line.endsWith("accept"));
  assert.deepEqual(accepts, [
    "ip daddr 198.18.0.1 meta l4proto { tcp, udp } th dport 53 accept",
    "ip daddr 198.19.0.0/16 meta l4proto tcp tproxy ip to 198.18.0.1:15001 accept",
    "ip daddr @literals meta l4proto tcp tproxy ip to 198.18.0.1:15001 accept",
  ]);
});

test("the host's rules look at the gateway's uid only, and close what is near", () => {
  const lines = rules(
    hostScript({
      tag: "abc123",
      uid: 1_899_000_001,
      resolvers: ["10.0.0.53", "10.0.0.53", "2001:db8::53", "127.0.0.1:5353", "[::1]:5353"],
      hosts: ["10.1.2.3", "fd00::7"],
    }),
  );
  assert.deepEqual(lines.slice(0, 3), [
    "table inet atoll_abc123",
    "delete table inet atoll_abc123",
    "table inet atoll_abc123 {",
  ]);
  // Not "skuid !=": a packet that has no uid at all would fall through it to the rules below.
  assert.deepEqual(lines.slice(3, 8), [
    "chain output {",
    "type filter hook output priority filter; policy accept;",
    "meta skuid 1899000001 goto gateway",
    "}",
    "chain gateway {",
  ]);
  assert.deepEqual(lines.slice(8, 14), [
    "ip daddr 10.0.0.53 meta l4proto { tcp, udp } th dport 53 accept",
    "ip daddr 127.0.0.1 meta l4proto { tcp, udp } th dport 5353 accept",
    "ip6 daddr 2001:db8::53 meta l4proto { tcp, udp } th dport 53 accept",
    "ip6 daddr ::1 meta l4proto { tcp, udp } th dport 5353 accept",
    "ip daddr 10.1.2.3 meta l4proto tcp accept",
    "ip6 daddr fd00::7 meta l4proto tcp accept",
  ]);
  assert.ok(lines.slice(14, 17).every((line) => line.endsWith("goto near")));
  assert.deepEqual(lines.slice(17), [
    "}",
    "chain near {",
    "meta l4proto tcp reject with tcp reset",
    "reject",
    "}",
    "}",
  ]);
});
