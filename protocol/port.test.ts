import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePreviewLabel, PreviewDomain, previewLabelOf } from "./port.ts";

test("a preview's label is told from other names", () => {
  assert.deepEqual(parsePreviewLabel("3000-Box-tok"), { port: 3000, rest: "box-tok" });
  for (const label of [
    "",
    "3000",
    "3000-",
    "80-box-tok",
    "65536-box-tok",
    "03000-box-tok",
    "box-tok",
    "3000-box tok",
  ]) {
    assert.equal(parsePreviewLabel(label), undefined, label);
  }
  assert.equal(parsePreviewLabel(`3000-${"a".repeat(60)}`), undefined);
});

test("only the first part of a host name with a domain is a label", () => {
  assert.equal(previewLabelOf("3000-box-tok.localhost"), "3000-box-tok");
  for (const name of [
    "3000-box-tok",
    "3000-box-tok.",
    "www.3000-box-tok.example.com",
    "localhost",
    "127.0.0.1",
    "::1",
    "",
  ]) {
    assert.equal(previewLabelOf(name), undefined, name);
  }
});

test("a domain has nothing but a scheme, a name and a port", () => {
  for (const domain of ["localhost", "localhost:8080", "https://previews.example.com", "http://a.test:81"]) {
    assert(PreviewDomain.safeParse(domain).success, domain);
  }
  for (const domain of ["", "a/b", "ftp://a.test", "a..b", "-a.test", "user@a.test", "a.test:x", "a.test\r\nb"]) {
    assert(!PreviewDomain.safeParse(domain).success, domain);
  }
});
