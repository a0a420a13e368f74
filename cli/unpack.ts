import { link, lstat, mkdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, type Header } from "tar-stream";
import { SandboxError } from "../protocol/errors.ts";

/**
 * Unpacks a tar stream that comes out of a sandbox into a directory, which is made when missing. The stream is hostile:
 * nothing is written outside the directory, no symlink is written through, and only files, directories and links are
 * made, with the caller as their owner and without set-user-id. An entry that wants more is refused by name.
 */
export async function unpack(stream: Readable, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const known = new Set([""]);
  // Links are made last, so that no entry can be written through a link of the same stream.
  const links: (() => Promise<void>)[] = [];
  const entries = extract();
  const failed = pipeline(stream, entries);
  failed.catch(() => {}); // told below, when reading the entries throws the same
  for await (const entry of entries) {
    const { header } = entry;
    const parts = partsOf(header.name);
    if (parts.length > 0) await place(header, entry as AsyncIterable<Uint8Array>, parts);
    entry.resume();
  }
  await failed;
  for (const make of links) await make();

  async function place(header: Header, content: AsyncIterable<Uint8Array>, parts: string[]): Promise<void> {
    const path = join(directory, ...parts);
    const { linkname } = header;
    switch (header.type) {
      case "directory":
        return makeParents(parts);
      case "file":
      case "contiguous-file":
        await makeParents(parts.slice(0, -1));
        await rm(path, { force: true });
        // Exclusive: it fails rather than follows what was put there meanwhile.
        await writeFile(path, content, { flag: "wx", mode: header.mode & 0o777 });
        await utimes(path, header.mtime, header.mtime);
        return;
      case "symlink":
        await makeParents(parts.slice(0, -1));
        links.push(() => replace(path, () => symlink(linkname, path)));
        return;
      case "link": {
        const target = partsOf(linkname);
        await makeParents(parts.slice(0, -1));
        await makeParents(target.slice(0, -1));
        const existing = join(directory, ...target);
        if (!(await lstat(existing)).isFile()) throw refused(header.name, "it is a link to what is no file");
        await replace(path, () => link(existing, path));
        return;
      }
      case "block-device":
      case "character-device":
      case "fifo":
        throw refused(header.name, `it is a ${header.type}`);
    }
  }

  /** Every directory on the way is a real one: made here, or found and looked at. */
  async function makeParents(parts: string[]): Promise<void> {
    for (let count = 1; count <= parts.length; count += 1) {
      const inside = parts.slice(0, count).join("/");
      if (known.has(inside)) continue;
      const path = join(directory, inside);
      await mkdir(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      });
      if (!(await lstat(path)).isDirectory()) throw refused(inside, `"${path}" is there and is no directory`);
      known.add(inside);
    }
  }
}

async function replace(path: string, make: () => Promise<void>): Promise<void> {
  await rm(path, { force: true });
  await make();
}

/** A path without its dots. Throws for one that leads out of the directory. */
function partsOf(name: string): string[] {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (name.startsWith("/") || name.includes("\0") || parts.includes(".."))
    throw refused(name, "it leads out of the directory");
  return parts;
}

function refused(name: string, why: string): SandboxError {
  return new SandboxError("FORBIDDEN", `Cannot unpack ${JSON.stringify(name)}: ${why}`);
}
