import assert from "node:assert/strict";
import { connect } from "node:tls";
import { once } from "node:events";
import { test } from "node:test";
import { run } from "../linux/run.ts";
import { openInsider, openTestbed } from "./testbed.ts";

const registry = new URL(
  await run("npm", ["config", "get", "registry"], { env: process.env as Record<string, string> }),
);
const host = registry.hostname;
const port = Number(registry.port || 443);

const probe = connect({ host, port, servername: host, rejectUnauthorized: false });
const reachable = await once(probe, "secureConnect", { signal: AbortSignal.timeout(10_000) }).then(
  () => true,
  () => false,
);
probe.destroy();

test(
  "the package registry is reached from a slot as from the host",
  { skip: !reachable && "not from this host" },
  async () => {
    await using bed = await openTestbed({}, true);
    const slot = await bed.network.takeSlot();
    await bed.network.attach(slot, { run: "run", names: "names" });
    using insider = await openInsider(slot);
    const answer = await insider.run(
      async ({ tls, once, addressOf }, { host, port }) => {
        const socket = tls.connect({ host: await addressOf(host), port, servername: host, rejectUnauthorized: false });
        await once(socket, "secureConnect");
        socket.write(`HEAD /-/ping HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
        const [bytes] = await once(socket, "data");
        socket.destroy();
        return String(bytes);
      },
      { host, port },
    );
    assert.match(answer, /^HTTP\/1\.1 \d{3}/);
  },
);
