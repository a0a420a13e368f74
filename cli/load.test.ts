import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { entries } from "../sdk/entries.ts";
import { type ProgramResult, runProgram } from "../test/support/program.ts";

const house = resolve(import.meta.dirname, "..");
const programs = join(house, "test/fixtures/programs");

function load(program: string, from = house): Promise<ProgramResult> {
  return runProgram(process.execPath, ["--enable-source-maps", "--import", join(from, "cli/load.ts"), program]);
}

test("TypeScript that leaving types out cannot run does run", async () => {
  const rows: [string, string][] = [
    ["enum.ts", "red+blue 3"],
    ["untyped-import.ts", "4"],
    ["extensionless.ts", "true"],
    ["commonjs/imports.ts", "imports.ts"],
    ["commonjs/requires.ts", "requires.ts 4"],
    ["sdk.ts", "true 0"],
  ];
  for (const [program, printed] of rows) {
    const { code, stdout, stderr } = await load(join(programs, program));
    assert.deepEqual({ stdout, stderr, code }, { stdout: `${printed}\n`, stderr: "", code: 0 }, program);
  }
});

test("everything that the package exports can be imported and required, of this checkout", async () => {
  await using at = await directory();
  const names = [...Object.keys(entries).map((entry) => join("@atoll/sandbox", entry)), "@atoll/sandbox/package.json"];
  assert.ok(names.includes("@atoll/sandbox/xterm"));
  const how = (name: string) => (name.endsWith(".json") ? ', { with: { type: "json" } }' : "");
  await writeFile(
    join(at.path, "imports.mts"),
    names.map((name) => `console.log(Object.keys(await import("${name}"${how(name)})).length > 0);`).join("\n"),
  );
  await writeFile(
    join(at.path, "requires.cts"),
    names.map((name) => `console.log(Object.keys(require("${name}")).length > 0);`).join("\n"),
  );
  await writeFile(
    join(at.path, "places.mts"),
    `import { SandboxAddon } from "@atoll/sandbox/xterm";
     console.log(typeof SandboxAddon, import.meta.resolve("@atoll/sandbox/xterm"));`,
  );
  for (const program of ["imports.mts", "requires.cts"]) {
    const { stdout, stderr } = await load(join(at.path, program));
    assert.deepEqual({ stdout, stderr }, { stdout: "true\n".repeat(names.length), stderr: "" }, program);
  }
  const { stdout } = await load(join(at.path, "places.mts"));
  assert.equal(stdout, `function ${pathToFileURL(join(house, "sdk/xterm.ts")).href}\n`);
  const unknown = join(at.path, "unknown.mts");
  await writeFile(unknown, 'import "@atoll/sandbox/nothing";');
  assert.match((await load(unknown)).stderr, /Cannot find package '@atoll\/sandbox'/);
});

test("a program below node_modules runs, and finds the SDK", async () => {
  await using at = await directory();
  const folder = join(at.path, "node_modules/some-tool");
  await cp(programs, folder, { recursive: true });
  for (const program of ["sdk.ts", "enum.ts", "untyped-import.ts", "commonjs/requires.ts"]) {
    const { code, stderr } = await load(join(folder, program));
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" }, program);
  }
});

test("a checkout that lies below node_modules itself works", async () => {
  await using at = await directory();
  const checkout = join(at.path, "node_modules/atoll");
  await mkdir(join(checkout, "cli"), { recursive: true });
  for (const part of ["sdk", "protocol", "package.json"])
    await cp(join(house, part), join(checkout, part), { recursive: true });
  await symlink(join(house, "node_modules"), join(checkout, "node_modules"));
  // As an installed package would bring it: Node itself loads the hook before there are hooks.
  const build = ["--bundle", "--packages=external", "--platform=node", "--format=esm", "--log-level=error"];
  const outfile = join(checkout, "cli/load.mjs");
  const esbuild = join(house, "node_modules/esbuild/bin/esbuild");
  assert.equal(
    (await runProgram(process.execPath, [esbuild, join(house, "cli/load.ts"), ...build, `--outfile=${outfile}`])).code,
    0,
  );
  const args = ["--import", outfile, join(programs, "sdk.ts")];
  assert.equal((await runProgram(process.execPath, args)).stdout, "true 0\n");
});

test("a syntax error names its place, and what is wrong there", async () => {
  const { code, stderr } = await load(join(programs, "syntax.ts"));
  assert.equal(code, 1);
  assert.match(stderr, /SyntaxError: Unexpected "="\n {4}at .*\/syntax\.ts:2:14\n\nconst wrong: = fine;\n {13}\^/);
});

test("an error that is thrown names its place in the source", async () => {
  const { code, stderr } = await load(join(programs, "throws.ts"));
  assert.equal(code, 1);
  assert.match(stderr, /Error: on purpose\n {4}at fail \(.*\/throws\.ts:6:9\)/);
});

test("a module that is not there is an error in Node's own words", async () => {
  await using at = await directory();
  const program = join(at.path, "program.ts");
  await writeFile(program, 'import "./nothing";');
  const { code, stderr } = await load(program);
  assert.equal(code, 1);
  assert.match(stderr, /Cannot find module '.*nothing'/);
});

async function directory(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), "atoll-load-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
