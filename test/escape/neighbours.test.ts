import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { attack, assertWell, type Boxes, hostPids, openBoxes, plant } from "./boxes.ts";
import { until } from "../support/until.ts";

type Said = Record<string, string>;

let boxes: Boxes;
/** The neighbour's process, as it knows itself and as the host does. */
let lair: { pid: string; hostPid: string; address: string };

before(async () => {
  boxes = await openBoxes();
  const pid = await plant(boxes.victim, "lair.py");
  const { stdout } = await boxes.victim.exec("hostname -I");
  lair = { pid, hostPid: String(hostPids(boxes.daemon, "/tmp/lair.py")[0]), address: stdout.trim() };
});
after(() => boxes.close());

async function hits(): Promise<string[]> {
  return JSON.parse((await boxes.victim.readFile("/tmp/hits")).content) as string[];
}

/** All that was tried, by how it went. */
function withOutcome(said: Said, matches: (outcome: string) => boolean): string[] {
  return Object.entries(said).flatMap(([name, outcome]) => (matches(outcome) ? [name] : []));
}

test("what processes of one sandbox share is there for them, and not for another sandbox", async () => {
  const {
    neighbours: own,
    sockets: ownSockets,
    ...within
  } = await attack<Said>(boxes.victim, "raid.py", [lair.pid, lair.address]);
  const local = `tcp ${lair.address} 7778`;
  assert.deepEqual(
    withOutcome(within, (outcome) => outcome !== "done"),
    [local],
    "the probe finds everything from within, but what listens on loopback",
  );
  assert.equal(ownSockets, "seen");
  assert.ok((JSON.parse(own ?? "") as number[]).includes(Number(lair.pid)));
  const kinds = ["abstract", "datagrams", "six", "tcp", "udp"];
  const before = await until(
    "each has been found",
    async () => (await hits()).length === kinds.length && (await hits()),
  );
  assert.deepEqual(before.toSorted(), kinds);

  const addresses = [lair.address, "127.0.0.1", "::1", "198.18.0.1", "198.19.0.1"];
  const { neighbours, sockets, ...across } = await attack<Said>(boxes.attacker, "raid.py", [
    lair.hostPid,
    ...addresses,
  ]);
  assert.deepEqual(
    withOutcome(across, (outcome) => outcome === "done" || outcome === "timed out"),
    [],
    "refused at once, all of it",
  );
  assert.equal(sockets, "none");
  assert.ok(
    (JSON.parse(neighbours ?? "") as number[]).every((pid) => pid < 10_000),
    "only its own processes are seen",
  );
  assert.deepEqual(await hits(), before);
});

test("a signal to everybody ends the own processes and nobody else's", async () => {
  const bystander = await plant(boxes.attacker, "lair.py");
  await boxes.attacker.exec("python3", ["-c", "import os, signal; os.kill(-1, signal.SIGKILL)"]);
  const { exitCode } = await boxes.attacker.exec("kill", ["-0", bystander]);
  assert.notEqual(exitCode, 0, "it was sent");
  await assertWell(boxes.attacker);
  assert.equal((await boxes.victim.exec("kill", ["-0", lair.pid])).exitCode, 0);
});

test(
  "the agent outlives every signal that its own root can send, however it is sent",
  { timeout: 120_000 },
  async () => {
    const storm = await attack<Said>(boxes.attacker, "storm.py");
    assert.deepEqual(storm, { kill: "sent", tgkill: "sent", sigqueue: "sent", "another process": "9" });
    await assertWell(boxes.attacker);
  },
);

test("a sandbox does not learn its neighbours' names from the host's tables", async () => {
  const tables = [
    "/proc/mounts",
    "/proc/self/mountinfo",
    "/proc/net/tcp",
    "/proc/net/unix",
    "/proc/net/route",
    "/proc/net/arp",
    "/proc/self/cgroup",
    "/proc/sysvipc/shm",
    "/proc/locks",
    "/proc/keys",
  ];
  const { stdout } = await boxes.attacker.exec("cat", [...tables, "/etc/hosts", "/etc/hostname"]);
  assert.match(stdout, /attacker/);
  assert.doesNotMatch(stdout, /victim/);
  assert.ok(!stdout.includes(lair.address));
});
