import { X509Certificate } from "node:crypto";
import { lstat, readFile, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { readIfThere } from "./whole-file.ts";

/** Where distributions keep the bundle that programs trust; our own recipes put it at the first. */
const bundlesInside = [
  "usr/share/atoll/ca-certificates.crt",
  "etc/ssl/certs/ca-certificates.crt",
  "etc/pki/tls/certs/ca-bundle.crt",
  "etc/ssl/cert.pem",
];

/** The certificates that a root file system brings itself, as one PEM text; empty when it brings none. */
export async function bundleOfRoot(root: string): Promise<string> {
  const home = await realpath(root);
  for (const name of bundlesInside) {
    const path = join(home, name);
    // Nothing in an image leads out of it: only a real file, reached without a symbolic link, counts.
    const real = await realpath(path).catch(() => undefined);
    if (real === path && (await lstat(path)).isFile()) return await readFile(path, "utf8");
  }
  return "";
}

/** The certificates that this host trusts, plus those of `extraFile` (the daemon's own NODE_EXTRA_CA_CERTS). */
export async function bundleOfHost(extraFile?: string): Promise<string> {
  const texts = await Promise.all(hostFiles(extraFile).map(readIfThere));
  return texts.filter((text) => text !== undefined).join("\n");
}

/** A text that changes when the host's certificates do. */
export async function stampOfHost(extraFile?: string): Promise<string> {
  const stats = await Promise.all(hostFiles(extraFile).map((path) => stat(path).catch(() => undefined))); // not each is there
  return stats
    .map((file) => (file ? `${file.dev}:${file.ino}:${file.size}:${file.mtimeMs}:${file.ctimeMs}` : "none"))
    .join();
}

function hostFiles(extraFile: string | undefined): string[] {
  const bundles = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
  return [...new Set(extraFile === undefined ? bundles : [...bundles, extraFile])];
}

/**
 * One PEM text with every certificate of these texts once, in the order of their first appearance. What is no
 * certificate is left out: one bad block makes OpenSSL refuse the rest of a file.
 */
export function mergeBundles(texts: readonly string[]): string {
  const seen = new Map<string, string>();
  for (const [, body = ""] of texts.join("\n").matchAll(pemBlock)) {
    const der = Buffer.from(body, "base64");
    const key = der.toString("base64");
    if (!seen.has(key) && isCertificate(der)) seen.set(key, toPem(key));
  }
  return [...seen.values()].join("");
}

const pemBlock = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g;

function isCertificate(der: Buffer): boolean {
  try {
    return new X509Certificate(der).raw.equals(der);
  } catch {
    return false; // the only way to ask is to try
  }
}

function toPem(base64: string): string {
  return `-----BEGIN CERTIFICATE-----\n${base64.replace(/.{1,64}/g, "$&\n")}-----END CERTIFICATE-----\n`;
}
