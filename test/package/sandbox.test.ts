import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { build } from "esbuild";
import { buildPackage } from "../../sdk/build.ts";
import { event, events, scriptedServer } from "../support/scripted-server.ts";

// The package @atoll/sandbox as its users get it: packed, installed into a project of theirs, imported, type-checked.

const root = join(import.meta.dirname, "../..");
const run = promisify(execFile);
let project = "";

before(async () => {
  project = await mkdtemp(join(tmpdir(), "atoll-package-"));
  await cp(join(root, "test/fixtures/programs/package"), project, { recursive: true });
  await writeFile(join(project, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }));
  const { stdout } = await run("npm", ["pack", await buildPackage(), "--json", "--pack-destination", project]);
  const packed = (JSON.parse(stdout) as { filename: string }[])[0]?.filename ?? "";
  // zod from what this project has installed, packed the same way: nothing is fetched.
  const zod = await run("npm", ["pack", join(root, "node_modules/zod"), "--json", "--pack-destination", project]);
  const zodPacked = (JSON.parse(zod.stdout) as { filename: string }[])[0]?.filename ?? "";
  await run("npm", ["install", "--offline", "--ignore-scripts", "--no-audit", `./${packed}`, `./${zodPacked}`], {
    cwd: project,
  });
});

after(() => rm(project, { recursive: true, force: true }));

test("the package holds its code, declarations, README and licence, and nothing else", async () => {
  const { stdout } = await run("npm", ["pack", "--dry-run", "--json"], { cwd: join(root, "sdk/dist") });
  const files = (JSON.parse(stdout) as { files: { path: string }[] }[])[0]?.files.map(({ path }) => path) ?? [];
  const odd = files.filter((path) => !/^(sdk|protocol)\/[a-z-]+\.(js|d\.ts)$/.test(path)).toSorted();
  assert.deepEqual(odd, ["LICENSE", "README.md", "package.json"]);
  assert(!files.some((path) => path.includes("test")));
});

/** The machine's own Node, 20 where the project brings 24. Under npm the project's comes first in PATH. */
const ownNode = (process.env["PATH"] ?? "")
  .split(delimiter)
  .filter((folder) => !folder.includes("node_modules"))
  .map((folder) => join(folder, "node"))
  .find((path) => existsSync(path));

for (const [name, node] of [
  ["the project's Node", process.execPath],
  ["the machine's Node", ownNode ?? process.execPath],
] as const) {
  test(`a program runs under ${name}`, async () => {
    const at = "2026-01-01T00:00:00.000Z";
    const end = { exitCode: 0, success: true, endedAtMs: 1, durationMs: 1, cpuTimeMs: 1, background: false };
    const stream =
      event("1-0", { type: "start", timestamp: at, pid: 1, processId: "p" }) +
      event("1-6", { type: "stdout", timestamp: at, data: "hello\n" }) +
      event("1-6", { type: "complete", timestamp: at, exitCode: 0, result: end });
    await using server = await scriptedServer([events(stream)]);
    const { stdout } = await run(node, ["run.mjs"], {
      cwd: project,
      env: { ...process.env, ATOLL_URL: server.url, ATOLL_TOKEN: "secret" },
    });
    const [major, ...lines] = stdout.trim().split("\n");
    assert(Number(major) >= 20);
    assert.deepEqual(lines, ["hello", "0", "INVALID_SANDBOX_ID"]);
    assert.equal(server.seen[0]?.headers.authorization, "Bearer secret");
  });
}

const strict = {
  strict: true,
  noImplicitOverride: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
};

for (const [name, options] of [
  ["Node's resolution", { module: "nodenext", moduleResolution: "nodenext", types: ["node"] }],
  ["a bundler's resolution and a browser's types", { module: "esnext", moduleResolution: "bundler", types: [] }],
] as const) {
  test(`a user's program type-checks with ${name}, with declarations checked too`, async () => {
    await mkdir(join(project, "node_modules/@types"), { recursive: true });
    for (const dependency of ["@types/node", "undici-types"]) {
      const link = join(project, "node_modules", dependency);
      await symlink(join(root, "node_modules", dependency), link).catch(() => {}); // there from the test before
    }
    const lib = options.types.length > 0 ? ["es2022"] : ["es2022", "dom", "dom.iterable", "dom.asynciterable"];
    const compilerOptions = { ...strict, ...options, lib, target: "es2022", noEmit: true, skipLibCheck: false };
    await writeFile(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["types.ts"] }));
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    await run(process.execPath, [tsc, "-p", project]).catch((error: { stdout: string }) => assert.fail(error.stdout));
  });
}

test("nothing of Node is imported, so that browsers, Workers, Deno and Bun can load it", async () => {
  const { metafile, warnings } = await build({
    absWorkingDir: project,
    stdin: { contents: 'export * from "@atoll/sandbox";', resolveDir: project },
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "browser",
    logLevel: "silent",
  });
  assert.deepEqual(warnings, []);
  const imports = Object.values(metafile.inputs).flatMap((input) => input.imports.map(({ path }) => path));
  assert.deepEqual(
    imports.filter((path) => path.startsWith("node:")),
    [],
  );
});

test("the manifest says what it needs", async () => {
  const manifest = JSON.parse(
    await readFile(join(project, "node_modules/@atoll/sandbox/package.json"), "utf8"),
  ) as Record<string, unknown>;
  assert.deepEqual(Object.keys(manifest["dependencies"] as object), ["zod"]);
  assert.equal(manifest["sideEffects"], false);
  assert.deepEqual(Object.keys(manifest["exports"] as object), [".", "./xterm", "./package.json"]);
});
