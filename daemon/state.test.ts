import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { ExecRequest } from "../protocol/process.ts";
import { Records } from "./sandbox/record.ts";
import { ServiceTable } from "./sandbox/service-table.ts";
import { openState, syncState } from "./state.ts";

async function folder(context: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "atoll-state-"));
  context.after(() => rm(dir, { recursive: true }));
  return dir;
}

function tablesOf(db: DatabaseSync): unknown[] {
  const columns = (name: unknown) => db.prepare(`SELECT name, type FROM pragma_table_info('${String(name)}')`).all();
  const tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").all();
  return tables.map(({ name }) => [name, columns(name)]);
}

const request = ExecRequest.parse({ processId: "web", command: "serve", background: true, restart: "wake" });

test("a file of version 1 is brought up, with what is in it", async (context) => {
  const dir = await folder(context);
  const old = new DatabaseSync(join(dir, "state.db"));
  old.exec(await readFile(new URL("../test/fixtures/state/version-1.sql", import.meta.url), "utf8"));
  old.close();
  using db = openState(dir);
  const box = new Records(db).find("box");
  assert.deepEqual([box?.key, box?.runNumber, box?.config.labels], ["aaaaaaaaaaaa", 3, { team: "data" }]);
  assert.deepEqual(new Records(db).garbage(), ["bbbbbbbbbbbb"]);
  new ServiceTable(db).put({ sandboxKey: "aaaaaaaaaaaa", id: "web", restart: "wake", request, run: 3 });
  using fresh = openState(await folder(context));
  assert.deepEqual(tablesOf(db), tablesOf(fresh));
});

test("a file of a later version is refused and left as it is", async (context) => {
  const dir = await folder(context);
  const later = new DatabaseSync(join(dir, "state.db"));
  later.exec("PRAGMA user_version = 999");
  later.close();
  assert.throws(() => openState(dir), /later version of Atoll \(999/);
});

test("services are found by the next daemon, change in place, and go with their sandbox", async (context) => {
  const dir = await folder(context);
  using db = openState(dir);
  const records = new Records(db);
  const config = { labels: {} } as never;
  const { key } = records.add({ name: "box", config, image: "base", imageDigest: "sha256:1" }, 100);
  const services = new ServiceTable(db);
  const service = { sandboxKey: key, id: "web", restart: "wake" as const, request, run: 1 };
  services.put(service);
  services.put({ ...service, id: "api" });
  services.put({ ...service, restart: "on-failure" });
  services.setRun(key, "web", 2);
  using next = openState(dir);
  assert.deepEqual(new ServiceTable(next).of(key), [
    { ...service, restart: "on-failure", run: 2 },
    { ...service, id: "api" },
  ]);
  assert.deepEqual([services.remove(key, "api"), services.remove(key, "api")], [true, false]);
  records.discard(records.find("box")!, 200);
  services.forget(key);
  assert.deepEqual([services.of(key), new ServiceTable(db).of(key)], [[], []]);
});

test("what is recorded can be made to survive the power, before and after the log was taken over", async (context) => {
  using db = openState(await folder(context));
  await syncState(db);
  db.exec("INSERT INTO garbage (key, discarded) VALUES ('aaaaaaaaaaaa', 1)");
  await syncState(db);
  db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  await syncState(db);
  assert.deepEqual(new Records(db).garbage(), ["aaaaaaaaaaaa"]);
});
