import assert from "node:assert/strict";
import { test } from "node:test";
import { decide } from "./policy.ts";

const allows = (host: string, named = false) => decide({ host, protocol: "dns", named }).allow;

test("names of the internet are allowed", () => {
  for (const host of ["example.com", "a.b.c.example.com", "xn--bcher-kva.example", "_sip._tcp.example.com", "a-b.io"])
    assert.equal(allows(host), true, host);
});

test("names that mean something on this machine only are refused with the reason", () => {
  for (const host of ["foo.localhost", "printer.local", "host.localdomain", "1.0.0.127.in-addr.arpa"]) {
    const decision = decide({ host, protocol: "tcp", port: 80, named: false });
    assert.equal(decision.allow, false, host);
    if (!decision.allow) assert.match(decision.rule, /belong to the machine/);
  }
});

test("what is no name of the internet is refused", () => {
  const long = `${"a.".repeat(126)}com`;
  for (const host of [
    "",
    "localhost",
    "wpad",
    "example",
    "1.2.3.4",
    "a..b",
    "-a.com",
    "a b.com",
    "é.com",
    "a/b.com",
    long,
  ])
    assert.equal(allows(host), false, host);
});

test("what the owner named is allowed whatever it is", () => {
  for (const host of ["db", "vcs.internal", "printer.local"]) assert.equal(allows(host, true), true, host);
});
