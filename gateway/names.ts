import { open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";

/**
 * The addresses that one sandbox's DNS gave, for the sandbox's whole life: a name keeps its address and an address never
 * means another name, whatever restarts in between. What `addressOf` answers is in the file before.
 */
export type NameTable = {
  /** The name's address in 198.19.0.0/16, taken now if it has none. Throws NamesFull at 16,384 names. */
  addressOf(name: string): Promise<string>;
  nameOf(address: string): string | undefined;
};

/** The sandbox has used up its names. */
export class NamesFull extends Error {}

/** Enough for a crawler's day; a table is at most 5 MB of memory, and a quarter of the addresses. */
export const nameLimit = 16_384;

const header = "atoll-names 1";

/**
 * Opens the table `id` (missing: empty) in `directory`. The format is a header line, then one name a line: line n has the
 * n-th address. A last line without its end was never answered and does not count. Throws when the content is another.
 */
export async function openNames(directory: string, id: string): Promise<NameTable> {
  const path = join(directory, id);
  const names = await readNames(path);
  const indexes = new Map(names.map((name, index) => [name, index]));
  let length = names.length === 0 ? 0 : Buffer.byteLength(`${header}\n${names.join("\n")}\n`);
  const pending = new Map<string, Promise<string>>();
  let last: Promise<unknown> = Promise.resolve();

  const append = async (name: string): Promise<string> => {
    if (names.length >= nameLimit)
      throw new NamesFull(`Cannot give "${name}" an address: ${nameLimit} names are in use`);
    const line = Buffer.from(length === 0 ? `${header}\n${name}\n` : `${name}\n`);
    // At its place rather than at the end: what a failed write left there is overwritten, not continued.
    const file = await open(path, names.length === 0 ? "w" : "r+", 0o600);
    try {
      const { bytesWritten } = await file.write(line, 0, line.length, length);
      if (bytesWritten < line.length) throw new Error(`Cannot write the name table ${path}: no space left`);
    } finally {
      await file.close();
    }
    length += line.length;
    indexes.set(name, names.length);
    return addressOfIndex(names.push(name) - 1);
  };

  return {
    nameOf: (address) => names[indexOfAddress(address)],
    addressOf: (name) => {
      const index = indexes.get(name);
      if (index !== undefined) return Promise.resolve(addressOfIndex(index));
      const known = pending.get(name);
      if (known) return known;
      const made = last.then(() => append(name)).finally(() => pending.delete(name));
      last = made.catch(() => {});
      pending.set(name, made);
      return made;
    },
  };
}

/** Copies a table as it stands in its file (missing: nothing to copy), whole or not at all. */
export async function copyNames(directory: string, from: string, to: string): Promise<void> {
  const names = await readNames(join(directory, from));
  if (names.length === 0) return;
  const path = join(directory, to);
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(`${header}\n${names.join("\n")}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}

export async function forgetNames(directory: string, id: string): Promise<void> {
  await rm(join(directory, id), { force: true });
}

async function readNames(path: string): Promise<string[]> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  const lines = text.split("\n");
  lines.pop();
  if (lines.length === 0) return [];
  const names = lines.slice(1);
  const sound = lines[0] === header && new Set(names).size === names.length && names.every(isStoredName);
  if (!sound)
    throw new Error(`Cannot read the name table ${path}: it is damaged. Destroy the sandbox or remove the file`);
  return names;
}

/** What DNS names are made of here, so that a damaged file is noticed. */
function isStoredName(name: string): boolean {
  return /^[a-z0-9_.-]{1,253}$/.test(name);
}

/** 198.19.0.1 onwards. */
function addressOfIndex(index: number): string {
  return `198.19.${(index + 1) >> 8}.${(index + 1) & 255}`;
}

function indexOfAddress(address: string): number {
  const match = /^198\.19\.(\d+)\.(\d+)$/.exec(address);
  return match ? Number(match[1]) * 256 + Number(match[2]) - 1 : -1;
}
