import assert from "node:assert/strict";
import { test } from "node:test";
import { forbiddenRange } from "./range.ts";

const own = new Set(["192.0.2.2", "2001:db8::2"]);

test("public addresses may be dialled, documentation ranges among them", () => {
  for (const address of ["1.1.1.1", "203.0.113.4", "192.0.2.3", "100.128.0.1", "172.32.0.1", "2606:4700::1111"])
    assert.equal(forbiddenRange(address, own), undefined, address);
});

test("addresses of the machine and of its networks may not", () => {
  const cases: Record<string, RegExp> = {
    "192.0.2.2": /of this machine/,
    "2001:db8::2": /of this machine/,
    "127.0.0.1": /loopback/,
    "127.255.255.254": /loopback/,
    "0.0.0.0": /no address of a host/,
    "0.1.2.3": /no address of a host/,
    "10.0.0.1": /private/,
    "172.16.0.1": /private/,
    "172.31.255.255": /private/,
    "192.168.1.1": /private/,
    "100.64.0.1": /carrier/,
    "100.100.100.200": /carrier/,
    "169.254.169.254": /metadata/,
    "168.63.129.16": /metadata/,
    "192.0.0.192": /reserved/,
    "198.18.0.1": /sandboxes/,
    "198.19.255.255": /sandboxes/,
    "224.0.0.1": /multicast/,
    "239.255.255.255": /multicast/,
    "240.0.0.1": /reserved/,
    "255.255.255.255": /reserved/,
    "::": /IPv6 form/,
    "::1": /IPv6 form/,
    "fe80::1": /no public/,
    "fe80::1%eth0": /no IP address/,
    "fd00:ec2::254": /no public/,
    "fec0::1": /no public/,
    "ff02::1": /no public/,
    "100::1": /no public/,
    "2001::1": /Teredo/,
    "4000::1": /no public/,
    localhost: /no IP address/,
    "": /no IP address/,
    "127.1": /no IP address/,
    "0x7f.0.0.1": /no IP address/,
  };
  for (const [address, why] of Object.entries(cases)) assert.match(forbiddenRange(address, own) ?? "", why, address);
});

test("an IPv4 address is judged in every IPv6 form that carries it", () => {
  const forms = (v4: string, hex: string) => [
    `::ffff:${v4}`,
    `::ffff:${hex}`,
    `0:0:0:0:0:ffff:${hex}`,
    `::${v4}`,
    `64:ff9b::${v4}`,
    `64:ff9b::${hex}`,
    `2002:${hex}::1`,
  ];
  for (const form of forms("10.1.2.3", "a01:203")) assert.match(forbiddenRange(form, own) ?? "", /private/, form);
  for (const form of forms("127.0.0.1", "7f00:1")) assert.match(forbiddenRange(form, own) ?? "", /loopback/, form);
  for (const form of forms("192.0.2.2", "c000:202"))
    assert.match(forbiddenRange(form, own) ?? "", /this machine/, form);
  for (const form of forms("1.1.1.1", "101:101")) assert.equal(forbiddenRange(form, own), undefined, form);
});
