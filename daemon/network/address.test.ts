import assert from "node:assert/strict";
import { test } from "node:test";
import { gatewayUid, hubLink, slotAddress, slotCount, slotName, slotOfName } from "./address.ts";
import { parseResolvConf } from "./resolv-conf.ts";

test("every slot has an address of its own, apart from the gateway's", () => {
  assert.equal(slotAddress(0), "198.18.1.0");
  assert.equal(slotAddress(slotCount - 1), "198.18.254.255");
  const all = new Set(Array.from({ length: slotCount }, (_, slot) => slotAddress(slot)));
  assert.equal(all.size, slotCount);
});

test("a namespace's name tells its slot only to its own daemon", () => {
  assert.equal(slotOfName("abc123", slotName("abc123", 7)), 7);
  for (const name of ["aabc124-7", "aabc123-hub", "aabc123-07", "aabc123-99999", "aabc123-", "abc123-7", "aabc123-1 "])
    assert.equal(slotOfName("abc123", name), undefined, name);
  assert.ok(hubLink(slotCount - 1).length <= 15, "longer names of interfaces are refused by the kernel");
});

test("a gateway's uid lies between the host's own and the sandboxes'", () => {
  for (const tag of ["000000", "abc123", "ffffff"]) {
    const uid = gatewayUid(tag);
    assert.ok(uid >= 1_899_000_000 && uid < 1_899_900_000);
    assert.equal(uid, gatewayUid(tag));
  }
  assert.notEqual(gatewayUid("abc123"), gatewayUid("abc124"));
});

test("resolvers are read as the C library reads them", () => {
  const text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n nameserver\t::1 # x\nnameserver fe80::1%eth0\n";
  assert.deepEqual(parseResolvConf(text), ["10.0.0.1", "::1"]);
  assert.deepEqual(parseResolvConf("nameserver 1.1.1.1\n".repeat(5)).length, 3);
  assert.deepEqual(parseResolvConf(""), ["127.0.0.1"]);
});
