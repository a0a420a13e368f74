import { buildSync } from "esbuild";
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { chmod, copyFile, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { SandboxError } from "../../protocol/errors.ts";

/** Where the gateway's uid finds what it runs, also when the checkout lies under /root. */
export type GatewayProgram = { node: string; script: string; /** Hash of the script. */ version: string };

/** Bundles the gateway into `runDir`, and copies this Node once into the machine's store. */
export async function placeGatewayProgram(runDir: string, storeDir: string): Promise<GatewayProgram> {
  const entry = fileURLToPath(new URL("../../gateway/main.ts", import.meta.url));
  // Synchronously: it takes 50 ms at start, and leaves no helper process behind.
  const { outputFiles } = buildSync({
    ...{ entryPoints: [entry], bundle: true, write: false, platform: "node", target: "node24", format: "cjs" },
    logLevel: "silent",
  });
  const text = outputFiles[0]!.contents;
  const script = join(runDir, "gateway.cjs");
  const version = createHash("sha256").update(text).digest("hex").slice(0, 16);
  await placeFile(script, 0o644, async (path) => {
    const file = await open(path, "wx");
    await file.writeFile(text).finally(() => file.close());
  });
  return { node: await placeNode(join(storeDir, "bin")), script, version };
}

async function placeNode(directory: string): Promise<string> {
  const path = join(directory, `node-${process.version}`);
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const [wanted, there] = await Promise.all([stat(process.execPath), stat(path).catch(() => undefined)]);
  if (there?.size !== wanted.size) {
    await placeFile(path, 0o755, (temporary) => copyFile(process.execPath, temporary, constants.COPYFILE_FICLONE));
  }
  await requireWalkable(directory);
  return path;
}

/** Whole or not at all. */
async function placeFile(path: string, mode: number, write: (path: string) => Promise<void>): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  try {
    await write(temporary);
    await chmod(temporary, mode);
    const file = await open(temporary, "r");
    await file.sync().finally(() => file.close());
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}

async function requireWalkable(directory: string): Promise<void> {
  for (let at = directory; ; at = dirname(at)) {
    if (((await stat(at)).mode & 0o001) === 0) {
      throw new SandboxError(
        "NOT_SUPPORTED",
        `Cannot start the gateway from "${directory}": "${at}" is closed to other users`,
        {
          suggestion: `Choose another --store-dir, or run chmod o+x "${at}": the gateway runs as a user without rights`,
        },
      );
    }
    if (at === dirname(at)) return;
  }
}
