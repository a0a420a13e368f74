import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { rootCertificates } from "node:tls";
import { test } from "node:test";
import { mergeBundles } from "./ca-bundle.ts";

/** As OpenSSL writes them: 64 characters in a line. */
const [first = "", second = ""] = rootCertificates.slice(0, 2).map((pem) => new X509Certificate(pem).toString());

test("a certificate that comes twice, wrapped another way, is kept once, in the order of its first appearance", () => {
  const body = first.replace(/-----[^-]+-----/g, "").replace(/\s/g, "");
  const unwrapped = `-----BEGIN CERTIFICATE-----\r\n${body}\r\n-----END CERTIFICATE-----`;
  const merged = mergeBundles([`# comment\n${second}\n${first}`, unwrapped]);
  assert.equal(merged, `${second}${first}`);
  assert.equal(mergeBundles([merged]), merged);
});

test("what is no certificate is left out", () => {
  const key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const cut = `${first.slice(0, 200)}\n`;
  assert.equal(mergeBundles([key, broken, first, cut]), first);
  assert.equal(mergeBundles(["", "plain text"]), "");
});
