import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { SandboxError } from "../protocol/errors.ts";
import type { Connection } from "../sdk/connection.ts";
import { getSandbox, type Sandbox } from "../sdk/sandbox.ts";
import { pack, sizeOf } from "./pack.ts";
import { destinationOf, type Local, type Remote } from "./place.ts";
import { counted, type Progress } from "./progress.ts";

/** Copies a file, a directory or a tar stream into a sandbox. */
export async function copyIn(connection: Connection, from: Local, to: Remote, progress: Progress): Promise<void> {
  const sandbox = getSandbox(connection, to.id);
  if (from.kind === "stream") {
    await sandbox.uploadArchive(to.path, web(process.stdin).pipeThrough(counted(progress)));
    return;
  }
  const source = await stat(from.path);
  const destination = destinationOf(from.path, to.path, await isDirectory(sandbox, to.path));
  if (source.isDirectory()) {
    progress.expect(await sizeOf(from.path));
    await sandbox.uploadArchive(destination, web(Readable.from(pack(from.path))).pipeThrough(counted(progress)));
  } else if (source.isFile()) {
    progress.expect(source.size);
    const content = web(createReadStream(from.path)).pipeThrough(counted(progress));
    await sandbox.writeFile(destination, content, { mode: source.mode & 0o777 });
  } else {
    throw new SandboxError("VALIDATION_FAILED", `Cannot copy "${from.path}": it is neither a file nor a directory`);
  }
}

/** Whether there is a directory at that path of the sandbox, or a link to one. */
export async function isDirectory(sandbox: Sandbox, path: string): Promise<boolean> {
  try {
    // The dot leads through a link to what it names, and is an error behind a file.
    return (await sandbox.stat(`${path}/.`)).type === "directory";
  } catch (error) {
    if (SandboxError.is(error, "FILE_NOT_FOUND") || SandboxError.is(error, "NOT_DIRECTORY")) return false;
    throw error;
  }
}

function web(stream: Readable): ReadableStream<Uint8Array> {
  return Readable.toWeb(stream) as ReadableStream<Uint8Array>;
}
