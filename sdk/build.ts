import { execFile } from "node:child_process";
import { cp, glob, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { entries } from "./entries.ts";

const root = join(import.meta.dirname, "..");
const dist = join(import.meta.dirname, "dist");

/**
 * Builds the package @atoll/sandbox into sdk/dist, ready for `npm pack` there: ESM and declarations of the SDK and the part
 * of the protocol that it uses, manifest, README, licence. Version and zod's range are those of the project.
 */
export async function buildPackage(): Promise<string> {
  await rm(dist, { recursive: true, force: true });
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  await promisify(execFile)(process.execPath, [tsc, "-p", join(import.meta.dirname, "tsconfig.build.json")]);
  await renameImports();
  const project = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
    version: string;
    license: string;
    dependencies: { zod: string };
  };
  await writeFile(join(dist, "package.json"), JSON.stringify(manifest(project), undefined, 2) + "\n");
  await cp(join(import.meta.dirname, "README.md"), join(dist, "README.md"));
  await cp(join(root, "LICENSE"), join(dist, "LICENSE"));
  return dist;
}

/** The compiler leaves `.ts` in the imports of declarations, which not every version of it can follow. */
async function renameImports(): Promise<void> {
  for await (const file of glob("**/*.d.ts", { cwd: dist })) {
    const text = await readFile(join(dist, file), "utf8");
    await writeFile(join(dist, file), text.replace(/((?:from|import\()\s*"\.[^"]*)\.ts"/g, '$1.js"'));
  }
}

function manifest({
  version,
  license,
  dependencies,
}: {
  version: string;
  license: string;
  dependencies: { zod: string };
}) {
  return {
    name: "@atoll/sandbox",
    version,
    description: "A named, isolated, persistent Linux computer for every AI agent, on machines you own",
    license,
    type: "module",
    sideEffects: false,
    engines: { node: ">=20.3" },
    exports: {
      ...Object.fromEntries(
        Object.entries(entries).map(([entry, module]) => [
          entry,
          { types: `./sdk/${module}.d.ts`, default: `./sdk/${module}.js` },
        ]),
      ),
      "./package.json": "./package.json",
    },
    files: ["sdk", "protocol"],
    dependencies: { zod: dependencies.zod },
  };
}

if (import.meta.main) await buildPackage();
