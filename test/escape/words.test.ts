import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import { until } from "../support/until.ts";
import { assertWell, type Boxes, openBoxes } from "./boxes.ts";
import { ask } from "./run-dir.ts";

let boxes: Boxes;
before(async () => {
  boxes = await openBoxes();
  await assertWell(boxes.attacker);
});
after(() => boxes.close());

const evil = 'x\n{"level":60,"msg":"forged"}\r\n\u001b[2J';

function assertLogIsWhole(): void {
  for (const line of boxes.daemon.log().split("\n").filter(Boolean)) {
    const { msg } = JSON.parse(line) as { msg?: string };
    assert.notEqual(msg, "forged");
  }
}

test("a variable is one variable whatever it holds", async () => {
  const env = { A: evil, "B\nFORGED": "x", "C D": "y", LD_PRELOAD: "", "BASH_FUNC_ls%%": "() { echo forged; }" };
  const { stdout } = await boxes.attacker.exec(
    "python3",
    ["-c", "import json, os; print(json.dumps(dict(os.environ)))"],
    { env },
  );
  const seen = JSON.parse(stdout) as Record<string, string>;
  assert.equal(seen["A"], evil);
  assert.equal(seen["B\nFORGED"], "x");
  assert.ok(!("FORGED" in seen));
  const two = boxes.attacker.exec("true", { env: { "B\nFORGED=1": "x" } });
  await assert.rejects(two, { code: "VALIDATION_FAILED" });
});

test("a session's saved state takes no command out of a variable's name or value", async () => {
  const session = await boxes.attacker.createSession({
    env: { V: "$(touch /tmp/forged)`touch /tmp/forged`'\"\n; touch /tmp/forged" },
  });
  await session.exec(
    "export W='$(touch /tmp/forged)'; cd /tmp; mkdir -p $'d\\n; touch forged'; cd $'d\\n; touch forged'",
  );
  await session.exec(`X="\${V}"; f() { echo "$V"; }; alias g='touch /tmp/forged2'`);
  const { stdout } = await session.exec('printf %s "$V"; pwd');
  assert.match(stdout, /^\$\(touch \/tmp\/forged\)`touch/);
  assert.match(stdout, /; touch forged\n$/);
  const names = { "V;touch /tmp/forged;": "x", "V$(touch /tmp/forged)": "x", "a[$(touch /tmp/forged)]": "x" };
  await boxes.attacker.setEnvVars(names).catch(() => {});
  await session.exec("true", { env: names }).catch(() => {});
  await session.exec("true").catch(() => {});
  await boxes.attacker.setEnvVars(Object.fromEntries(Object.keys(names).map((name) => [name, null])));
  const there = await boxes.attacker.exec("ls", ["/tmp"]);
  assert.doesNotMatch(there.stdout, /^forged/m);
});

test("what callers and sandboxes say becomes one line each in log and journal", { timeout: 60_000 }, async () => {
  await boxes.attacker.exec(`: ${evil}`).catch(() => {});
  await boxes.attacker.exec(evil, [evil]).catch(() => {});
  await boxes.attacker.stat(`/tmp/${evil}`).catch(() => {});
  await boxes.attacker.writeFile(`/tmp/${evil}`, evil);
  await boxes.attacker.gitCheckout(`https://nowhere.invalid/${encodeURIComponent(evil)}`).catch(() => {});
  await boxes.attacker.setLabels({ label: evil });
  assert.equal((await ask(boxes.daemon, `${encodeURIComponent(evil)}/files/stat?path=/`)).status, 400);
  assert.equal((await ask(boxes.daemon, `attacker/processes/${encodeURIComponent(evil)}`)).status, 400);
  using db = new DatabaseSync(join(boxes.daemon.dataDir, "state.db"), { readOnly: true });
  const rows = () =>
    db
      .prepare("SELECT data FROM journal WHERE type = 'process'")
      .all()
      .map(({ data }) => JSON.parse(String(data)) as { command?: string });
  await until("the command is in the journal", () => rows().some(({ command }) => command?.includes("forged")));
  assertLogIsWhole();
});

test("a name, a host or a token with a line's end in it is refused before it is used", async () => {
  for (const headers of [{ host: "evil.example" }, { authorization: "Bearer x" }, {}] as Record<string, string>[]) {
    const status = await rawStatus(headers);
    assert.ok([401, 403].includes(status), `${JSON.stringify(headers)}: ${status}`);
  }
  assertLogIsWhole();
});

async function rawStatus(headers: Record<string, string>): Promise<number> {
  const { request } = await import("node:http");
  return new Promise((resolve, reject) => {
    const outgoing = request(`${boxes.daemon.url}/v1/sandboxes`, { headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    outgoing.on("error", reject).end();
  });
}
