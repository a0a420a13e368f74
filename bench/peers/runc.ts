import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { call, environment, versionOf } from "./program.ts";
import type { Runc } from "./peers.ts";

/** The runtime alone, as `runc spec` describes a container: no user namespace, no network, no disk, no agent, no limits. */
export function runcPeer(rootDir: string, stack: AsyncDisposableStack): (Runc & { version: string }) | undefined {
  const version = versionOf("runc");
  if (version === undefined) return undefined;
  const bundle = async (args: string[]) => {
    const dir = await mkdtemp(join(tmpdir(), "atoll-bench-runc-"));
    stack.defer(() => rm(dir, { recursive: true, force: true }));
    await call("runc", "spec", "--bundle", dir);
    const spec = JSON.parse(await readFile(join(dir, "config.json"), "utf8")) as Spec;
    spec.process = { ...spec.process, terminal: false, args };
    spec.root = { path: rootDir, readonly: true };
    await writeFile(join(dir, "config.json"), JSON.stringify(spec));
    return { dir, runc: (...words: string[]) => call("runc", "--root", join(dir, "state"), ...words) };
  };
  let ofTrue: ReturnType<typeof bundle> | undefined;
  return {
    version,
    async runTrue() {
      const { dir, runc } = await (ofTrue ??= bundle(["/bin/true"]));
      await runc("run", "--bundle", dir, unique());
    },
    async startSleeper() {
      const { dir, runc } = await bundle(["/bin/sleep", "1000000"]);
      const id = unique();
      await detach(dir, id, runc);
      return {
        execTrue: () => runc("exec", id, "/bin/true"),
        [Symbol.asyncDispose]: async () => void (await runc("delete", "--force", id)),
      };
    },
  };
}

type Spec = { process: Record<string, unknown>; root: Record<string, unknown> };

/** A container keeps the descriptors of whoever made it: with pipes of ours `runc run --detach` would never end. */
async function detach(dir: string, id: string, runc: (...words: string[]) => Promise<string>): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const child = spawn("runc", ["--root", join(dir, "state"), "run", "--detach", "--bundle", dir, id], {
    stdio: "ignore",
    env: environment(),
  });
  child.on("error", reject).on("exit", () => resolve());
  await promise;
  await runc("state", id);
}

function unique(): string {
  return `bench-${randomBytes(4).toString("hex")}`;
}
