import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { copyNames, forgetNames, nameLimit, NamesFull, openNames } from "./names.ts";

const directory = mkdtempSync(join(tmpdir(), "names-"));
after(() => rmSync(directory, { recursive: true }));

test("a name keeps its address, also for the next gateway", async () => {
  const names = await openNames(directory, "keeps");
  const first = await names.addressOf("one.example");
  const second = await names.addressOf("two.example");
  assert.deepEqual([first, second, await names.addressOf("one.example")], ["198.19.0.1", "198.19.0.2", first]);
  const next = await openNames(directory, "keeps");
  assert.equal(next.nameOf(second), "two.example");
  assert.equal(await next.addressOf("three.example"), "198.19.0.3");
});

test("many names asked for at the same time each get one address", async () => {
  const names = await openNames(directory, "together");
  const wanted = Array.from({ length: 600 }, (_, index) => `n${index % 300}.example`);
  const addresses = await Promise.all(wanted.map((name) => names.addressOf(name)));
  assert.equal(new Set(addresses).size, 300);
  addresses.forEach((address, index) => assert.equal(names.nameOf(address), wanted[index]));
  const next = await openNames(directory, "together");
  addresses.forEach((address, index) => assert.equal(next.nameOf(address), wanted[index]));
});

test("addresses that nobody was given mean nothing", async () => {
  const names = await openNames(directory, "nothing");
  await names.addressOf("one.example");
  for (const address of ["198.19.0.0", "198.19.0.2", "198.18.0.1", "1.1.1.1", "", "::1", "198.19.0.1.1"])
    assert.equal(names.nameOf(address), undefined, address);
});

test("a last line that was cut off does not count and is written over", async () => {
  for (const rest of ["", "tor", "torn-and-much-longer-than-the-next.example"]) {
    await forgetNames(directory, "torn");
    const names = await openNames(directory, "torn");
    await names.addressOf("one.example");
    appendFileSync(join(directory, "torn"), rest);
    const next = await openNames(directory, "torn");
    assert.equal(await next.addressOf("b.example"), "198.19.0.2");
    const last = await openNames(directory, "torn");
    assert.equal(last.nameOf("198.19.0.2"), "b.example");
    assert.equal(last.nameOf("198.19.0.3"), undefined);
  }
});

test("a file cut at any place loses no more than the names behind the cut", async () => {
  const names = await openNames(directory, "cut");
  for (let index = 0; index < 5; index++) await names.addressOf(`n${index}.example`);
  const path = join(directory, "cut");
  for (let size = readFileSync(path).length; size >= 0; size--) {
    truncateSync(path, size);
    const next = await openNames(directory, "cut");
    for (let index = 0; index < 5; index++) {
      const name = next.nameOf(`198.19.0.${index + 1}`);
      assert.ok(name === undefined || name === `n${index}.example`);
    }
  }
});

test("a damaged table is refused: no address may come to mean another name", async () => {
  for (const text of ["another\na.example\n", "atoll-names 1\na.example\na.example\n", "atoll-names 1\n\0\0\0\n"]) {
    writeFileSync(join(directory, "damaged"), text);
    await assert.rejects(openNames(directory, "damaged"), /Cannot read the name table .*damaged/);
  }
});

test("a copy has the same addresses and goes its own way", async () => {
  const names = await openNames(directory, "from");
  await names.addressOf("one.example");
  await copyNames(directory, "from", "to");
  await names.addressOf("two.example");
  const copy = await openNames(directory, "to");
  assert.equal(copy.nameOf("198.19.0.1"), "one.example");
  assert.equal(await copy.addressOf("other.example"), "198.19.0.2");
  await copyNames(directory, "missing", "empty");
  assert.equal((await openNames(directory, "empty")).nameOf("198.19.0.1"), undefined);
});

test("a sandbox has at most 16,384 names, and keeps those it has", async () => {
  const lines = Array.from({ length: nameLimit }, (_, index) => `n${index}.example\n`);
  writeFileSync(join(directory, "full"), `atoll-names 1\n${lines.join("")}`);
  const names = await openNames(directory, "full");
  await assert.rejects(names.addressOf("more.example"), NamesFull);
  assert.equal(await names.addressOf(`n${nameLimit - 1}.example`), "198.19.64.0");
});
