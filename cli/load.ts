import { existsSync, readFileSync, statSync } from "node:fs";
import Module, { createRequire, registerHooks } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { entries } from "../sdk/entries.ts";
import { afterMain } from "./app/after-main.ts";
import { appOf } from "./app/module.ts";
import { takeAppOptions } from "./app/options.ts";
import { tellWatcher } from "./app/watched.ts";
import { useCompileCache } from "./compile-cache.ts";

// Loaded before a user's program (node --import): lets Node run all TypeScript, wherever it lies, not only what can be
// run by leaving types out, finds @atoll/sandbox in this checkout, and hosts a program that is an app.

useCompileCache();

const house = new URL("../", import.meta.url).href;
/** What programs may import of the package, and where it lies here; the checkout's manifest has the package's version. */
const sdk = new Map([
  ["@atoll/sandbox/package.json", new URL("package.json", house).href],
  ...Object.entries(entries).map(
    ([entry, module]) => [join("@atoll/sandbox", entry), new URL(`sdk/${module}.ts`, house).href] as const,
  ),
]);
const typescript = /\.[mc]?ts$/;

registerHooks({
  resolve(specifier, context, next) {
    const own = sdk.get(specifier);
    if (own !== undefined) return { url: own, shortCircuit: true };
    try {
      return next(specifier, context);
    } catch (error) {
      const url = typescriptFileOf(specifier, context.parentURL, error);
      if (url === undefined) throw error;
      return next(url, context);
    }
  },
  load(url, context, next) {
    return isTheirs(url) ? { ...translate(fileURLToPath(url), context), shortCircuit: true } : next(url, context);
  },
});

// A CommonJS file that is imported comes past the hook to Node's older loader, which would translate it once more, and
// refuses to below node_modules. That loader asks this table.
const { _extensions: loaders } = Module as unknown as { _extensions: Record<string, Loader> };
type Loader = (module: { _compile(source: string, path: string, format: string): void }, path: string) => void;
for (const extension of [".ts", ".cts", ".mts"]) {
  loaders[extension] = (module, path) => {
    if (!isTheirs(pathToFileURL(path).href)) return loaders[".js"]?.(module, path);
    const { source, format } = translate(path, {});
    module._compile(source, path, format);
  };
}

const options = takeAppOptions();
if (options) {
  if (options.isWatched) tellWatcher(isOwn);
  afterMain((exports) => {
    const app = appOf(exports);
    // Only then is the rest loaded: a plain program starts as fast as without.
    if (app) void import("./app/main.ts").then(({ run }) => run(app, options));
  });
}

/** Our own files are written so that Node runs them by itself, which is quicker; it refuses below node_modules. */
function isTheirs(url: string): boolean {
  if (!url.startsWith("file:") || !typescript.test(new URL(url).pathname)) return false;
  return !isOwn(url) || url.includes("/node_modules/");
}

function isOwn(url: string): boolean {
  return ["sdk/", "protocol/", "cli/"].some((part) => url.startsWith(house + part));
}

/** TypeScript users write "./b.js" or "./b" for b.ts, because their compiler wants it so. */
function typescriptFileOf(specifier: string, parent: string | undefined, error: unknown): string | undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (!parent || !typescript.test(new URL(parent).pathname) || !/^\.{1,2}\/|^file:|^\//.test(specifier))
    return undefined;
  if (code !== "ERR_MODULE_NOT_FOUND" && code !== "MODULE_NOT_FOUND" && code !== "ERR_UNSUPPORTED_DIR_IMPORT")
    return undefined;
  const { href } = new URL(specifier, parent);
  const names = [href.replace(/\.([mc]?)js$/, ".$1ts"), `${href}.ts`, `${href}.mts`, `${href}.cts`, `${href}/index.ts`];
  return names.find((name) => name !== href && statSync(new URL(name), { throwIfNoEntry: false })?.isFile());
}

type Esbuild = typeof import("esbuild");
let esbuild: Esbuild | undefined;

type Translated = { source: string; format: "module" | "commonjs" };

function translate(path: string, context: { format?: string | null | undefined }): Translated {
  esbuild ??= createRequire(import.meta.url)("esbuild") as Esbuild;
  try {
    const { outputFiles, metafile } = esbuild.buildSync({
      stdin: { contents: readFileSync(path, "utf8"), loader: "ts", sourcefile: path },
      // One file is translated, nothing is bundled; metafile tells what kind of module it is.
      ...{ bundle: false, write: false, metafile: true },
      ...{ target: "node24", platform: "node", sourcemap: "inline", logLevel: "silent", tsconfigRaw: {} },
    });
    const written = Object.values(metafile.inputs)[0]?.format;
    return { format: formatOf(path, written, context.format), source: outputFiles[0]?.text ?? "" };
  } catch (error) {
    throw readable(path, error);
  }
}

/**
 * The name decides, then what the file is written as, then its package. A package says "commonjs" where nobody meant it
 * (npm init writes it), so it does not forbid a file to use import.
 */
function formatOf(
  path: string,
  written: "esm" | "cjs" | undefined,
  known: string | null | undefined,
): "module" | "commonjs" {
  if (path.endsWith(".mts")) return "module";
  if (path.endsWith(".cts")) return "commonjs";
  if (written !== undefined) return written === "esm" ? "module" : "commonjs";
  if (known?.startsWith("module")) return "module";
  return typeOfPackage(dirname(path));
}

function typeOfPackage(folder: string): "module" | "commonjs" {
  const manifest = join(folder, "package.json");
  if (existsSync(manifest)) {
    const { type } = JSON.parse(readFileSync(manifest, "utf8")) as { type?: string };
    return type === "module" ? "module" : "commonjs";
  }
  const above = dirname(folder);
  return above === folder || basename(folder) === "node_modules" ? "commonjs" : typeOfPackage(above);
}

/** What the translator says, in the form in which Node tells syntax errors. */
function readable(path: string, error: unknown): unknown {
  const first = (
    error as { errors?: { text: string; location: { line: number; column: number; lineText: string } | null }[] }
  ).errors?.[0];
  if (!first?.location) return error;
  const { line, column, lineText } = first.location;
  const syntaxError = new SyntaxError(first.text);
  const mark = `${lineText.slice(0, column).replace(/[^\t]/g, " ")}^`;
  syntaxError.stack = `SyntaxError: ${first.text}\n    at ${path}:${line}:${column + 1}\n\n${lineText}\n${mark}`;
  return syntaxError;
}
