import { createHash, hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, lchown, lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../linux/run.ts";

/** What an image is: a closed tree of files that nobody else changes while we look. */
export type Tree = {
  /** Sorted by path; the root is ".". */
  entries: TreeEntry[];
  /** sha256 of a canonical listing: paths, types, modes, owners, capabilities, contents; no times, no inode numbers. */
  digest: string;
  /** Content of its files, each hard-linked one once. */
  sizeBytes: number;
};

/** Names are bytes: paths are held as latin1 strings, one character for each byte, and sort as bytes do. */
export type TreeEntry = {
  path: string;
  /** Permission, setuid, setgid and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  /** File capabilities in setcap's words. */
  capabilities?: string;
} & (
  | { type: "directory" }
  | { type: "file"; sha256: string; sizeBytes: number }
  | { type: "symlink"; target: string }
  | { type: "link"; to: string }
);

/** Reads a whole tree; symbolic links are not followed. Throws for devices, sockets and FIFOs: an image holds none. */
export async function readTree(root: string, signal?: AbortSignal): Promise<Tree> {
  const capabilities = await readCapabilities(root);
  const entries: TreeEntry[] = [];
  const firstNames = new Map<string, string>();
  const contents: (() => Promise<void>)[] = [];

  for (const path of await walk(root)) {
    signal?.throwIfAborted();
    const stat = await lstat(bytes(root, path));
    const kept = capabilities.get(path);
    const common = {
      path,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      ...(kept && { capabilities: kept }),
    };
    if (stat.isDirectory()) entries.push({ ...common, type: "directory" });
    else if (stat.isSymbolicLink())
      entries.push({ ...common, type: "symlink", target: await readlink(bytes(root, path), "latin1") });
    else if (stat.isFile()) {
      const first = stat.nlink > 1 ? firstNames.get(`${stat.dev}:${stat.ino}`) : undefined;
      if (first !== undefined) {
        entries.push({ ...common, type: "link", to: first });
        continue;
      }
      firstNames.set(`${stat.dev}:${stat.ino}`, path);
      const entry = { ...common, type: "file" as const, sha256: "", sizeBytes: stat.size };
      entries.push(entry);
      contents.push(async () => {
        entry.sha256 = await hashFile(bytes(root, path), stat.size, signal);
      });
    } else
      throw new Error(`Cannot import "${root}": "${path}" is a device, socket or FIFO, which an image may not hold`);
  }
  await allOf(contents);

  const listing = createHash("sha256");
  for (const entry of entries) listing.update(`${JSON.stringify(canonical(entry))}\n`);
  const sizeBytes = entries.reduce((sum, entry) => sum + (entry.type === "file" ? entry.sizeBytes : 0), 0);
  return { entries, digest: `sha256:${listing.digest("hex")}`, sizeBytes };
}

/** The first uids and gids of a user namespace's range; what lies beyond has no owner inside. */
const rangeSize = 65_536;

/**
 * Gives every file to `uidBase` + its owner, so that it has the same owner inside a user namespace that begins there.
 * A pass over names, because the tree is on disk already (unpacked by dpkg, which must own its files while it works).
 * lchown drops setuid bits and capabilities: both are written again, capabilities for that user namespace only.
 */
export async function shiftTree(root: string, tree: Tree, uidBase: number): Promise<void> {
  for (const entry of tree.entries) {
    if (entry.uid < rangeSize && entry.gid < rangeSize) continue;
    throw new Error(`Cannot import "${root}": "${entry.path}" belongs to ${entry.uid}:${entry.gid}, beyond 65535`);
  }
  await allOf(
    tree.entries
      .filter((entry) => entry.type !== "link")
      .map((entry) => async () => {
        await lchown(bytes(root, entry.path), uidBase + entry.uid, uidBase + entry.gid);
        if (entry.type !== "symlink" && entry.mode & 0o6000) await chmod(bytes(root, entry.path), entry.mode);
      }),
  );
  for (const entry of tree.entries) {
    if (!entry.capabilities || entry.type === "link") continue;
    await run("setcap", ["-n", String(uidBase), entry.capabilities, join(root, utf8(entry.path))]);
  }
}

async function walk(root: string): Promise<string[]> {
  const paths = ["."];
  const pending = [""];
  for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
    // Names in bytes: an image may hold names that are no UTF-8.
    for (const found of await readdir(bytes(root, dir), { withFileTypes: true, encoding: "buffer" })) {
      const path = dir + found.name.toString("latin1");
      paths.push(path);
      if (found.isDirectory()) pending.push(`${path}/`);
    }
  }
  return paths.sort((a, b) => (a < b ? -1 : 1));
}

/** Lines of `getcap`: "<path> <capabilities>"; a path may hold spaces, capabilities do not. */
async function readCapabilities(root: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const line of (await run("getcap", ["-r", root])).split("\n")) {
    const [, path, text] = /^(.*) (\S+)$/.exec(line) ?? [];
    if (path?.startsWith(`${root}/`) && text) found.set(latin1(path.slice(root.length + 1)), text);
  }
  return found;
}

function canonical(entry: TreeEntry): unknown[] {
  const { path, type, mode, uid, gid, capabilities = "" } = entry;
  const content = type === "file" ? entry.sha256 : type === "symlink" ? entry.target : type === "link" ? entry.to : "";
  // A symbolic link has no mode of its own.
  return [path, type, type === "symlink" ? 0 : mode, uid, gid, capabilities, content];
}

/** Up to here a file is read in one piece, which is much quicker: nearly all files of an image are smaller. */
const smallFileBytes = 1 << 20;

async function hashFile(path: Buffer, sizeBytes: number, signal?: AbortSignal): Promise<string> {
  if (sizeBytes <= smallFileBytes) return hash("sha256", await readFile(path));
  const whole = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: smallFileBytes, ...(signal && { signal }) })) {
    whole.update(chunk);
  }
  return whole.digest("hex");
}

function bytes(root: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, "latin1")]);
}

/** Host programs speak UTF-8 with us; a name that is none, with capabilities, fails in their words. */
function utf8(path: string): string {
  return Buffer.from(path, "latin1").toString("utf8");
}

function latin1(path: string): string {
  return Buffer.from(path, "utf8").toString("latin1");
}

/** Node's own pool has four threads for files; a few more keep it busy. */
const atOnce = 8;

async function allOf(work: readonly (() => Promise<void>)[]): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let task = work[next++]; task; task = work[next++]) await task();
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
