import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { parsePreviewLabel } from "../../protocol/port.ts";
import { whyNotSandboxId } from "../../protocol/names.ts";
import { openState } from "../state.ts";
import { describePort, findPreview } from "./port.ts";
import { type PortRow, PortTable } from "./port-table.ts";
import { labelOf, newPortToken, slugOf } from "./preview-name.ts";
import { Records } from "./record.ts";

const dir = mkdtempSync(join(tmpdir(), "atoll-ports-"));
const db = openState(dir);
after(() => {
  db.close();
  rmSync(dir, { recursive: true, force: true });
});

const records = new Records(db);
const keyOf = (name: string) =>
  records.add({ name, config: {} as never, image: "base", imageDigest: "sha256:0" }, Date.now()).key;
const rowOf = (name: string, more: Partial<PortRow> = {}) => {
  const base = { port: 3000, slug: slugOf(name), token: newPortToken(), auth: "token" as const };
  return { sandboxKey: keyOf(name), ...base, ...more };
};

test("every legal id has a label that DNS allows and that is read back", () => {
  const char = fc.constantFrom(..."abcXYZ019-");
  const id = fc
    .string({ unit: char, minLength: 1, maxLength: 63 })
    .filter((text) => whyNotSandboxId(text) === undefined);
  fc.assert(
    fc.property(id, fc.integer({ min: 1024, max: 65_535 }), (name, port) => {
      const slug = slugOf(name);
      const label = labelOf({ ...rowless, port, slug, token: newPortToken() });
      assert(label.length <= 63 && /^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$/.test(label), label);
      assert.equal(parsePreviewLabel(label)?.rest, label.slice(label.indexOf("-") + 1));
      assert.equal(slug === name, name === name.toLowerCase() && name.length <= 40);
    }),
  );
});
const rowless = { sandboxKey: "", auth: "token" as const, gone: new AbortController() };

test("ids that differ in their letters' case have different slugs", () => {
  assert.equal(new Set(["box", "Box", "BOX", "boX"].map(slugOf)).size, 4);
});

test("a preview is found by its token, in any case of letters, and by nothing else", () => {
  const ports = new PortTable(db);
  const row = ports.put(rowOf("found-by-token", { token: "s3cret_" }));
  assert.equal(findPreview(ports, "3000-found-by-token-s3cret_"), row);
  assert.equal(findPreview(ports, "3000-FOUND-by-token-S3CRET_"), row);
  for (const label of [
    "3000-found-by-token-s3cret",
    "3000-found-by-token",
    "3001-found-by-token-s3cret_",
    "3000-s3cret_",
  ]) {
    assert.equal(findPreview(ports, label), undefined, label);
  }
});

test("a public one is found without a token", () => {
  const ports = new PortTable(db);
  const row = ports.put(rowOf("for-all", { auth: "public" }));
  assert.equal(labelOf(row), "3000-for-all");
  assert.equal(findPreview(ports, "3000-for-all"), row);
});

test("rows are there for the next daemon, and go with what they belong to", () => {
  const first = new PortTable(db);
  const row = first.put(rowOf("kept", { name: "web", domain: "example.com" }));
  first.put({ ...row, port: 4000 });
  const next = new PortTable(db);
  assert.deepEqual({ ...next.find(row.sandboxKey, 3000), gone: 0 }, { ...row, gone: 0 });
  assert.equal(next.remove(row.sandboxKey, 3000), true);
  assert.equal(next.remove(row.sandboxKey, 3000), false);
  assert.equal(next.labelled(labelOf(row)), undefined);
  records.discard(records.find("kept")!, Date.now());
  next.forget(row.sandboxKey);
  assert.deepEqual([next.of(row.sandboxKey), new PortTable(db).of(row.sandboxKey)], [[], []]);
});

test("a URL is taken back from who is connected through it", () => {
  const ports = new PortTable(db);
  const row = ports.put(rowOf("taken-back"));
  const renamed = ports.put({ ...row, name: "web" });
  ports.remove(row.sandboxKey, 3000);
  assert(renamed.gone.signal.aborted && row.gone.signal.aborted);
});

test("a URL has TLS unless it is of this machine or says otherwise", () => {
  const row = { ...rowless, port: 3000, slug: "box", token: "t" };
  const urlFor = (domain: string | undefined) =>
    describePort({ ...row, ...(domain !== undefined && { domain }) }, { apiPort: 7465 }, true).url;
  assert.equal(urlFor(undefined), "http://3000-box-t.localhost:7465");
  assert.equal(urlFor("localhost:8080"), "http://3000-box-t.localhost:8080");
  assert.equal(urlFor("example.com"), "https://3000-box-t.example.com");
  assert.equal(urlFor("http://example.com:81"), "http://3000-box-t.example.com:81");
});
