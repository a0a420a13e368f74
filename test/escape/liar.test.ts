import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import type { Sandbox } from "../../sdk/index.ts";
import { until } from "../support/until.ts";
import { assertWell, type Boxes, openBoxes, sourceOf } from "./boxes.ts";
import { agentPidOf, ask, linkDirOf } from "./run-dir.ts";

let boxes: Boxes;
let memoryBefore: number;
before(async () => {
  boxes = await openBoxes();
  await Promise.all([assertWell(boxes.attacker), assertWell(boxes.victim)]);
  memoryBefore = peakMemoryMiB();
  await startLiar(boxes.attacker, "attacker");
});
after(() => boxes.close());

/** Puts liar.py in the place of the agent's socket, and waits until no connection to the agent is left to be used again. */
async function startLiar(box: Sandbox, name: string): Promise<void> {
  const ready = Promise.withResolvers<void>();
  const running = box.exec("python3", ["-c", await sourceOf("liar.py")], { onOutput: () => ready.resolve() });
  running.then((result) => ready.reject(new Error(result.stderr))).catch(() => {}); // it ends with its sandbox
  await ready.promise;
  const fds = `/proc/${agentPidOf(boxes.daemon, name)}/fd`;
  const sockets = () => readdirSync(fds).filter((fd) => readlinkSync(join(fds, fd)).startsWith("socket:"));
  await until("the agent has its listener, its events and this command only", () => sockets().length === 3);
}

function peakMemoryMiB(): number {
  const status = readFileSync(`/proc/${boxes.daemon.pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1]) / 1024;
}

/** Lines of the journal that tell of what a liar invented. */
function journalled(): number {
  using db = new DatabaseSync(join(boxes.daemon.dataDir, "state.db"), { readOnly: true });
  return Number(db.prepare("SELECT count(*) AS n FROM journal WHERE data LIKE '%lie-%'").get()?.["n"]);
}

type Outcome = { mode: string; status: number; code: string; text: string };

function outcomeOf(mode: string, { status, text }: { status: number; text: string }): Outcome {
  // of a stream that failed under way the last event has the error
  return { mode, status, code: /"code":"(\w+)"/.exec(text)?.[1] ?? "", text };
}

async function stat(mode: string): Promise<Outcome> {
  return outcomeOf(mode, await ask(boxes.daemon, `attacker/files/stat?path=${mode}`));
}

async function exec(mode: string): Promise<Outcome> {
  const json = { processId: mode, argv: ["true"] };
  return outcomeOf(mode, await ask(boxes.daemon, "attacker/processes", { json }));
}

async function all(modes: readonly string[], call: (mode: string) => Promise<Outcome>): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const mode of modes) outcomes.push(await call(mode));
  return outcomes;
}

function assertAllUnreachable(outcomes: Outcome[]): void {
  const others = outcomes.filter(({ code }) => code !== "AGENT_UNREACHABLE");
  assert.deepEqual(
    others.map(({ mode, status, text }) => `${mode}: ${status} ${text.slice(0, 300)}`),
    [],
  );
}

const lies = [
  ...["garbage", "hangup", "no-json", "wrong-types", "infinite", "proto", "short", "negative", "two-lengths", "deep"],
  ...[
    "both-lengths",
    "chunk-size",
    "chunk-cut",
    "switching",
    "no-content",
    "reset-content",
    "not-modified",
    "status-999",
  ],
  ...[
    "status-1000",
    "redirect",
    "unknown-code",
    "endless-refusal",
    "headers",
    "long-header",
    "status-line",
    "continues",
  ],
  ...["hints", "chunk-extension", "huge-json", "tiny-chunks"],
];

test("an answer that makes no sense, or has no end, is AGENT_UNREACHABLE", { timeout: 60_000 }, async () => {
  assert.equal((await stat("honest")).status, 200, "the liar is asked");
  assertAllUnreachable(await all(lies, stat));
  for (const mode of ["long", "trailers"]) {
    const { status, text } = await stat(mode);
    assert.ok(status === 200 || text.includes("AGENT_UNREACHABLE"), `${mode}: ${text}`);
  }
  assert.equal((await stat("honest")).status, 200, "what came behind an answer is not the next one");
  await assertWell(boxes.victim);
});

test("words of a refusal are cut to a length that fits a log", async () => {
  const { status, text } = await stat("huge-refusal");
  assert.equal(status, 507);
  assert.ok(text.length < 8_192, `${text.length}`);
});

test(
  "a file whose headers lie is refused or cut off, and never passes what only the agent may say",
  { timeout: 60_000 },
  async () => {
    for (const mode of [...lies, "file-header", "length-lie", "range-lie"]) {
      const outcome = await ask(boxes.daemon, `attacker/files/content?path=${mode}`, {
        signal: AbortSignal.timeout(2_000),
      }).then(
        ({ status, text }) => ({ status, text }),
        (error: Error) => ({ status: 0, text: error.message }),
      );
      assert.notEqual(outcome.status, 500, `${mode}: ${outcome.text.slice(0, 300)}`);
      assert.ok(![101, 302].includes(outcome.status), mode);
    }
    await assertWell(boxes.victim);
  },
);

test("a listing that lies ends in AGENT_UNREACHABLE", { timeout: 60_000 }, async () => {
  const list = async (mode: string) => outcomeOf(mode, await ask(boxes.daemon, `attacker/files/list?path=${mode}`));
  assertAllUnreachable(
    await all(["list-cut", "list-nonsense", "list-line", "garbage", "chunk-cut", "no-content"], list),
  );
});

test("a log that lies ends in AGENT_UNREACHABLE", { timeout: 60_000 }, async () => {
  const modes = ["f-kind", "f-length", "f-backwards", "f-jump", "f-offset", "f-gap", "f-cut", "f-end", "f-json"];
  assertAllUnreachable(await all([...modes, "f-time", "garbage", "hangup", "switching"], exec));
  assert.match((await exec("f-endtime")).text, /"type":"complete","timestamp":"\+275760-/, "a time that no date has");
  const { code } = await exec("f-error");
  assert.ok(["AGENT_UNREACHABLE", "INTERNAL_ERROR"].includes(code), code);
  assert.doesNotMatch(boxes.daemon.log(), /a request failed/, "nothing of it looked like a bug of ours");
});

test("who never ends an answer is given up, and others are served meanwhile", { timeout: 90_000 }, async () => {
  const slow = ["silent", "silent-body", "drip", "slow-header", "slow-continues", "silent-refusal"];
  let ended = false;
  const outcomes = Promise.all([...slow.map(stat), exec("silent"), exec("f-silent")]).finally(() => (ended = true));
  let served = 0;
  while (!ended) {
    await assertWell(boxes.victim);
    served += 1;
  }
  assertAllUnreachable(await outcomes);
  assert.ok(served > 10, `${served}`);
});

test("endless heartbeats hold up nobody else, and stop when their reader leaves", async () => {
  const left = new AbortController();
  const reading = ask(boxes.daemon, "attacker/processes", {
    json: { processId: "f-heartbeats", argv: ["true"] },
    signal: left.signal,
  });
  reading.catch(() => {});
  for (let round = 0; round < 20; round++) await assertWell(boxes.victim);
  left.abort();
  await assert.rejects(reading);
});

test("the daemon's memory has stayed within bounds through all of it", () => {
  const grown = peakMemoryMiB() - memoryBefore;
  // A download in chunks of one byte costs most: some 60 KiB of them wait at each hop, a few hundred bytes for each.
  assert.ok(grown < 300, `${Math.round(grown)} MiB more at the peak`);
});

test("stop and destroy do not wait for a liar", { timeout: 60_000 }, async () => {
  await boxes.attacker.stop();
  await assertWell(boxes.attacker);
  await startLiar(boxes.attacker, "attacker");
  await boxes.attacker.destroy();
  await assertWell(boxes.attacker);
});

test("a daemon that takes over a liar's run is not filled with its events", { timeout: 60_000 }, async () => {
  await boxes.attacker.writeFile("/tmp/events-mode", "e-flood");
  await startLiar(boxes.attacker, "attacker");
  await boxes.daemon.kill("SIGKILL");
  await boxes.daemon.up();
  assert.equal((await boxes.attacker.info()).state, "running", "it says hello like an agent");
  const sent = join(linkDirOf(boxes.daemon, "attacker"), "sent");
  await until("its flood is read", () => existsSync(sent));
  for (let round = 0; round < 20; round++) await assertWell(boxes.victim);
  assert.equal(journalled(), 0);
  await boxes.attacker.destroy();
});

test("a daemon that finds a liar without an answer ends its run and is ready", { timeout: 60_000 }, async () => {
  await boxes.attacker.writeFile("/tmp/hello-mode", "silent-body");
  await startLiar(boxes.attacker, "attacker");
  await boxes.daemon.kill("SIGKILL");
  await boxes.daemon.up();
  assert.equal((await boxes.attacker.info()).lastEnd?.reason, "agent-lost");
  await assertWell(boxes.attacker);
  await assertWell(boxes.victim);
});
