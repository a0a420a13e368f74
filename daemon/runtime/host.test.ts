import assert from "node:assert/strict";
import { test } from "node:test";
import { findUidOverlap } from "./host-checks.ts";
import { requireHost, requireIsolation } from "./host.ts";
import type { Check } from "./host.ts";

const base = 1_900_000_000;

test("ids that somebody else holds are found, also where ranges only touch at an end", () => {
  const none = { subordinate: "user:100000:65536\n", accounts: "root:x:0:0::/root:/bin/sh\nnobody:x:65534:\n" };
  assert.equal(findUidOverlap(base, none), undefined);
  for (const [line, meets] of [
    [`user:${base - 65_536}:65536`, false],
    [`user:${base - 65_536}:65537`, true],
    [`user:${base + 65_535}:1`, true],
    [`user:${base + 65_536}:65536`, false],
    ["user:100000:4000000000", true],
  ] as const) {
    assert.equal(findUidOverlap(base, { ...none, subordinate: line }) !== undefined, meets, line);
  }
  assert.match(findUidOverlap(base, { ...none, accounts: `eve:x:${base + 5}:5::/:/bin/sh` }) ?? "", /the id of eve/);
  assert.match(findUidOverlap(65_536, none) ?? "", /given to user/);
});

const good: Check = { name: "kernel", ok: true, detail: "Linux", needed: true };
const worth: Check = { name: "clock", ok: false, detail: "1970", remedy: "Set it", needed: false };

test("what is only worth knowing does not stop a start", () => {
  requireHost([good, worth]);
});

test("what is needed and missing stops the start with every reason and remedy", () => {
  const gaps = ["overlay", "btrfs"].map((name) => ({
    name,
    ok: false,
    detail: `no ${name}`,
    remedy: `Load ${name}`,
    needed: true,
  }));
  assert.throws(() => requireHost([good, worth, ...gaps]), {
    code: "NOT_SUPPORTED",
    message: "Cannot run sandboxes on this machine: overlay (no overlay); btrfs (no btrfs)",
    suggestion: "Load overlay. Load btrfs",
    details: { missing: ["overlay", "btrfs"] },
  });
});

test("an isolation that this version cannot give is refused", () => {
  requireIsolation("container");
  assert.throws(() => requireIsolation("gvisor"), { code: "NOT_SUPPORTED", message: /Cannot isolate with "gvisor"/ });
});
