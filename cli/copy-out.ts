import { randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { SandboxError } from "../protocol/errors.ts";
import type { Connection } from "../sdk/connection.ts";
import { getSandbox, type Sandbox } from "../sdk/sandbox.ts";
import { destinationOf, type Local, type Remote } from "./place.ts";
import { counted, type Progress } from "./progress.ts";
import { unpack } from "./unpack.ts";

/** Copies a file or a directory out of a sandbox, or writes it to standard output as a tar stream. */
export async function copyOut(connection: Connection, from: Remote, to: Local, progress: Progress): Promise<void> {
  const sandbox = getSandbox(connection, from.id);
  if (to.kind === "stream") {
    const archive = await sandbox.downloadArchive(from.path);
    await pipeline(node(archive.pipeThrough(counted(progress))), process.stdout, { end: false });
    return;
  }
  const toDirectory = await stat(to.path).then(
    (it) => it.isDirectory(),
    () => false,
  );
  const destination = destinationOf(from.path, to.path, toDirectory);
  const content = await openFile(sandbox, from.path);
  if (content) {
    progress.expect(content.size);
    await writeWhole(destination, node(content.stream.pipeThrough(counted(progress))), content.mode);
  } else {
    const archive = await sandbox.downloadArchive(from.path);
    await unpack(node(archive.pipeThrough(counted(progress))), destination);
  }
}

type OpenFile = { stream: ReadableStream<Uint8Array>; size: number; mode: number };

/** The file at a path, also behind a symlink; undefined for a directory. */
export async function openFile(sandbox: Sandbox, path: string): Promise<OpenFile | undefined> {
  try {
    const { content, size } = await sandbox.readFile(path, { encoding: "none" });
    const { mode, type } = await sandbox.stat(path);
    return { stream: content, size, mode: type === "file" ? modeOf(mode) : 0o644 };
  } catch (error) {
    if (SandboxError.is(error, "IS_DIRECTORY")) return undefined;
    throw error;
  }
}

/** "rwxr-x---" as a number. Set-user-id and the like do not leave a sandbox. */
function modeOf(text: string): number {
  return [...text.slice(-9)].reduce((mode, letter) => mode * 2 + (/[rwxst]/.test(letter) ? 1 : 0), 0);
}

/** The file at `path` is replaced whole or not at all. */
async function writeWhole(path: string, content: Readable, mode: number): Promise<void> {
  const unfinished = join(dirname(path), `.${basename(path)}.${randomBytes(4).toString("hex")}`);
  try {
    await pipeline(content, createWriteStream(unfinished, { flags: "wx", mode }));
    await rename(unfinished, path);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
}

function node(stream: ReadableStream<Uint8Array>): Readable {
  return Readable.from(stream);
}
