import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { test } from "node:test";

type Package = { version?: string; optionalDependencies?: Record<string, string>; hasInstallScript?: boolean };

const root = resolve(import.meta.dirname, "..");
const read = (file: string) => JSON.parse(readFileSync(resolve(root, file), "utf8")) as unknown;
const { packages } = read("package-lock.json") as { packages: Record<string, Package> };

test("the lock file names the optional packages of every platform", () => {
  // npm leaves out what the registry of the machine does not have, and then `npm ci` refuses the lock everywhere.
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !packages[`node_modules/${name}`] && !packages[`${path}/node_modules/${name}`],
    ),
  );
  assert.deepEqual(missing, []);
});

test("the lock file belongs to package.json", () => {
  const { dependencies, devDependencies, optionalDependencies } = read("package.json") as Record<string, object>;
  const { [""]: own } = packages;
  assert.partialDeepStrictEqual(own, { dependencies, devDependencies, optionalDependencies });
});

test("the lock file names no registry", () => {
  assert.doesNotMatch(readFileSync(resolve(root, "package-lock.json"), "utf8"), /"resolved"/);
});
