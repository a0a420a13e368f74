import { createReadStream } from "node:fs";
import type { Stats } from "node:fs";
import { lstat, opendir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { pack as startPack, type Header, type Pack } from "tar-stream";

/** The bytes of all files of a directory, for the progress bar. */
export async function sizeOf(directory: string): Promise<number> {
  let bytes = 0;
  for await (const { stats } of entriesOf(directory)) if (stats.isFile()) bytes += stats.size;
  return bytes;
}

/** A directory's contents as a tar stream: files, directories and symlinks, with modes and times. */
export function pack(directory: string): AsyncIterable<Uint8Array> {
  const archive = startPack();
  packAll(archive, directory).then(
    () => archive.finalize(),
    (error: Error) => archive.destroy(error),
  );
  return archive as AsyncIterable<Uint8Array>;
}

async function packAll(archive: Pack, directory: string): Promise<void> {
  for await (const { name, path, stats } of entriesOf(directory)) {
    const header: EntryHeader = { name, mode: stats.mode & 0o777, mtime: stats.mtime };
    if (stats.isDirectory()) await put(archive, { ...header, type: "directory" });
    else if (stats.isSymbolicLink()) await put(archive, { ...header, type: "symlink", linkname: await readlink(path) });
    else if (stats.isFile()) {
      const entry = archive.entry({ ...header, type: "file", size: stats.size });
      // A file that grows meanwhile is taken as long as it was, because its header says so.
      await pipeline(stats.size > 0 ? createReadStream(path, { end: stats.size - 1 }) : [], entry);
    }
  }
}

type EntryHeader = Partial<Header> & Pick<Header, "name">;

function put(archive: Pack, header: EntryHeader): Promise<void> {
  return new Promise((resolve, reject) => {
    archive.entry(header, (error) => (error ? reject(error) : resolve()));
  });
}

type Entry = { name: string; path: string; stats: Stats };

/** Parents before what is in them. Sockets, pipes and devices are not told: they mean nothing elsewhere. */
async function* entriesOf(directory: string, prefix = ""): AsyncGenerator<Entry> {
  for await (const { name } of await opendir(directory)) {
    const path = join(directory, name);
    const stats = await lstat(path);
    const inside = prefix + name;
    if (stats.isDirectory()) {
      yield { name: `${inside}/`, path, stats };
      yield* entriesOf(path, `${inside}/`);
    } else if (stats.isFile() || stats.isSymbolicLink()) yield { name: inside, path, stats };
  }
}
