import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { linkVersion } from "./agent.ts";
import { wireVersion } from "./version.ts";
import { describeWire } from "./wire.ts";

// Hashes of what both sides of each wire must agree on. When one differs, the wire was changed. Ask: could a client (or an
// agent) of the former version misunderstand a daemon of the new one, or be misunderstood? Then raise wireVersion
// (protocol/version.ts) or linkVersion (protocol/agent.ts). In any case put the new hash here, in the same commit.
const kept = {
  api: { version: 2, hash: "cbea1efcb3f1634e" },
  link: { version: 3, hash: "25f6392045d296b2" },
};

for (const [name, version] of [
  ["api", wireVersion],
  ["link", linkVersion],
] as const) {
  test(`the ${name} wire is the one whose hash is kept`, () => {
    const hash = createHash("sha256").update(JSON.stringify(describeWire()[name])).digest("hex").slice(0, 16);
    assert.deepEqual(
      { version, hash },
      kept[name],
      `The ${name} wire has changed: see the comment at the top of protocol/wire.test.ts`,
    );
  });
}

test("a change anywhere in a schema changes the description", () => {
  const { api } = describeWire() as { api: { verbs: { name: string; body: { properties: object } }[] } };
  const exec = api.verbs.find(({ name }) => name === "exec");
  assert(exec && "processId" in exec.body.properties);
});
