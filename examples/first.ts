// A repository gets a computer of its own: cloned, installed and tested there, with the output streaming back.
//
//   atoll run examples/first.ts          the repository that this file lies in
//   atoll run examples/first.ts URL      any npm project that git can clone
import { execFileSync, spawn } from "node:child_process";
import { Readable } from "node:stream";
import { styleText } from "node:util";
import { getSandbox, SandboxError } from "@atoll/sandbox";

const url = process.argv[2];
const folder = "/workspace/project";

// The same name is the same computer: run this twice, and the second time npm finds what it fetched before.
const box = getSandbox("first-steps", { instance: "standard-1" });

// Ctrl-C also stops what runs in the sandbox.
const stop = new AbortController();
process.once("SIGINT", () => stop.abort());

try {
  await step("waking the sandbox", () => box.exec("rm", ["-rf", folder]));
  if (url === undefined) await step("putting this repository into it", cloneOwn);
  else await step(`cloning ${url}`, () => box.gitCheckout(url, { targetDir: folder, depth: 1 }));

  const { exists: locked } = await box.exists(`${folder}/package-lock.json`);
  const installed = await step("installing", () => run("npm", [locked ? "ci" : "install", "--no-audit", "--no-fund"]));
  // This project's whole tests make sandboxes themselves; the quick ones run anywhere.
  const tested = installed || (await step("testing", () => run("npm", url ? ["test"] : ["run", "test:quick"])));

  process.exitCode = tested;
  say(tested === 0 ? "Passed." : `Failed with exit code ${tested}.`);
  console.log(
    'The sandbox keeps it all: "atoll exec first-steps -- ls -la project". To remove it: "atoll rm first-steps".',
  );
} catch (error) {
  if (!SandboxError.is(error)) throw error;
  console.error([error.message, error.suggestion ?? ""].join("\n").trimEnd());
  process.exitCode = 1;
}

/** What is committed of this repository, as one file that git can clone from. */
async function cloneOwn(): Promise<void> {
  const top = execFileSync("git", ["-C", import.meta.dirname, "rev-parse", "--show-toplevel"], { encoding: "utf8" });
  const git = spawn("git", ["-C", top.trim(), "bundle", "create", "--quiet", "-", "HEAD"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await box.writeFile("/tmp/repository.bundle", Readable.toWeb(git.stdout) as ReadableStream<Uint8Array>);
  const cloned = await box.exec("git", ["clone", "--quiet", "/tmp/repository.bundle", folder]);
  if (!cloned.success) throw new Error(`git clone: ${cloned.stderr}`);
}

/** Runs a command of the project in the sandbox and shows what it says. Gives its exit code. */
async function run(file: string, args: string[]): Promise<number> {
  const { exitCode } = await box.exec(file, args, {
    cwd: folder,
    signal: stop.signal,
    onOutput: (stream, data) => void process[stream].write(data),
  });
  return exitCode;
}

async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  say(`${what} ...`);
  const began = performance.now();
  const result = await work();
  console.log(styleText("dim", `    ${((performance.now() - began) / 1_000).toFixed(1)} s`));
  return result;
}

function say(text: string): void {
  console.log(styleText("bold", `==> ${text}`));
}
