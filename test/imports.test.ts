import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize, resolve } from "node:path";
import { test } from "node:test";

/**
 * The parts of the house and what each may import of the others (DESIGN.md, "Layout"). A file belongs to the longest
 * prefix that fits it. Tests, and what only tests use, are no part: they may import everything.
 */
const mayImport: Record<string, readonly string[]> = {
  protocol: [],
  sdk: ["protocol"],
  // `atoll up` is the daemon in the foreground, and `atoll doctor` says why it does not start.
  cli: ["protocol", "sdk", "daemon/main.ts", "daemon/config.ts", "daemon/runtime/host.ts"],
  console: ["protocol", "sdk"],
  examples: ["sdk"],
  images: ["daemon/storage"],
  gateway: ["protocol"],
  "daemon/linux": ["protocol"],
  "daemon/link": ["protocol", "daemon/linux"],
  "daemon/network": ["protocol", "daemon/linux"],
  "daemon/runtime": ["protocol", "daemon/linux"],
  "daemon/runtime/probe": ["protocol", "daemon", "test/support"],
  "daemon/storage": ["protocol", "daemon/linux"],
  "daemon/sandbox": [
    ...["protocol", "daemon/config.ts", "daemon/log.ts", "daemon/state.ts"],
    ...["daemon/link", "daemon/network", "daemon/runtime", "daemon/storage", "daemon/linux"],
  ],
  // The verbs of the machine (doctor, images) have no sandbox in between.
  "daemon/api": [
    ...["protocol", "daemon/config.ts", "daemon/log.ts", "daemon/sandbox"],
    ...["daemon/runtime/host.ts", "daemon/storage/images.ts"],
  ],
  "daemon/config.ts": ["protocol"],
  "daemon/log.ts": [],
  "daemon/state.ts": ["protocol"],
  "daemon/main.ts": ["protocol", "daemon", "package.json"],
  bench: ["protocol", "sdk", "daemon", "test/support"],
};

/** Parts that also run where there is no Node, and the packages they may use there. */
const packagesOf: Record<string, readonly string[]> = { protocol: ["zod"], sdk: ["zod"] };

/** Files that are built or run on a developer's machine only. */
const isTool = (path: string) => path === "sdk/build.ts" || path === "protocol/fixtures/make.ts";

const root = resolve(import.meta.dirname, "..");

test("imports point one way through the house", () => {
  const files = globSync("{protocol,sdk,cli,console,gateway,daemon,images,examples,bench}/**/*.{ts,tsx}", {
    cwd: root,
    exclude: ["**/dist"],
  });
  assert.ok(files.length > 50, "the house was found");
  const sources = files.map((path): [string, string] => [path, readFileSync(join(root, path), "utf8")]);
  assert.deepEqual(violations(Object.fromEntries(sources)), []);
});

test("an import against the direction is found in every form", () => {
  const wrong = {
    "protocol/a.ts": 'import { b } from "../sdk/b.ts";',
    "protocol/type.ts": 'import type {\n  B,\n} from "../sdk/b.ts";',
    "sdk/node.ts": 'import fs from "node:fs";',
    "sdk/package.ts": 'export * from "ws";',
    "gateway/inline.ts": 'export type C = import("../daemon/config.ts").Config;',
    "daemon/runtime/across.ts": 'const disk = await import("../storage/disks.ts");',
    "daemon/api/deep.ts": 'export { mount } from "../linux/mount.ts";',
    "daemon/linux/up.ts": 'import "../sandbox/run.ts";',
    "cli/inside.ts": 'import a, { type B } from "../daemon/sandbox/run.ts";',
    "examples/own.ts": 'import { x } from "../daemon/main.ts";',
    "link/homeless.ts": "",
    "sdk/hidden.ts": "await import(name);",
  };
  const found = violations(wrong).map((violation) => violation.split(" ")[0]);
  assert.deepEqual(found, Object.keys(wrong));
});

test("an import in the direction, in a comment or in a text is none", () => {
  const right = {
    "sdk/a.ts": 'import { z } from "zod";\nimport { verbs } from "../protocol/verbs.ts";',
    "sdk/guarded.ts": 'const { readFile } = await import("node:fs/promises");',
    "sdk/unbundled.ts": 'const fs = "node:fs";\nawait import(fs);',
    "cli/up.ts": 'const { serve } = await import("../daemon/main.ts");',
    "daemon/sandbox/start.ts": 'import { mountOverlay } from "../linux/mount.ts";\nimport net from "node:net";',
    "gateway/words.ts": '// import { x } from "../daemon/main.ts";\n/**\n * import("../sdk/index.ts")\n */',
    "gateway/dns.test.ts": 'import { serve } from "../daemon/main.ts";',
  };
  assert.deepEqual(violations(right), []);
});

function violations(sources: Record<string, string>): string[] {
  const isHouse = ([path]: [string, string]) => !path.includes(".test.") && !isTool(path);
  return Object.entries(sources)
    .filter(isHouse)
    .flatMap(([path, source]) => violationsOf(path, source));
}

function violationsOf(path: string, source: string): string[] {
  const part = partOf(path);
  if (part === undefined) return [`${path} belongs to no part`];
  const may = [part, ...(mayImport[part] ?? [])];
  return importsOf(source).flatMap(({ target, dynamic }) => {
    if (target === undefined) return packagesOf[part] ? [`${path} imports what cannot be read here`] : [];
    const fits = target.startsWith(".")
      ? may.some((prefix) => isBelow(normalize(join(dirname(path), target)), prefix))
      : packageFits(part, target, dynamic);
    return fits ? [] : [`${path} imports ${target}`];
  });
}

function partOf(path: string): string | undefined {
  const fitting = Object.keys(mayImport).filter((prefix) => isBelow(path, prefix));
  return fitting.sort((a, b) => b.length - a.length)[0];
}

function isBelow(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(`${prefix}/`);
}

/** A dynamic import of Node's own modules may be guarded, so that it is never reached elsewhere. */
function packageFits(part: string, name: string, dynamic: boolean): boolean {
  const allowed = packagesOf[part];
  return allowed === undefined || allowed.includes(name) || (dynamic && name.startsWith("node:"));
}

/** The formatter gives imports one form, at the start of a line; `import(` stands anywhere but in comments. */
function importsOf(source: string): { target: string | undefined; dynamic: boolean }[] {
  const code = source.replace(/^\s*\/\*[\s\S]*?\*\//gm, "").replace(/^\s*\/\/.*$/gm, "");
  const names = String.raw`(?:type\s+)?(?:[\w$]+\s*,\s*)?(?:\{[^}]*\}|\*(?:\s+as\s+[\w$]+)?|[\w$]+)`;
  const statement = new RegExp(String.raw`^(?:import|export)\s+(?:${names}\s+from\s+)?["']([^"']+)["']`, "gm");
  const dynamic = /\bimport\(\s*(?:["']([^"']*)["']|([\w$]+)\))?/g;
  // A name that bundlers must not follow is kept in a constant beside its import.
  const constant = (name = "") =>
    new RegExp(String.raw`\bconst ${name.replaceAll("$", "\\$")} = ["']([^"']*)["']`).exec(code)?.[1];
  return [
    ...Array.from(code.matchAll(statement), (match) => ({ target: match[1], dynamic: false })),
    ...Array.from(code.matchAll(dynamic), (match) => ({ target: match[1] ?? constant(match[2]), dynamic: true })),
  ];
}
