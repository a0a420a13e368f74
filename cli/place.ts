import { basename } from "node:path";

/** A path in a sandbox. */
export type Remote = { kind: "sandbox"; id: string; path: string };
/** A path of this machine, or a tar stream on standard input or output. */
export type Local = { kind: "here"; path: string } | { kind: "stream" };

/** `id:path`, `-`, or a path of this machine. A local name with a colon in it has a slash before: "./a:b". */
export function parsePlace(word: string): Remote | Local {
  if (word === "-") return { kind: "stream" };
  const remote = /^([^/.:][^/:]*):(.*)$/s.exec(word);
  if (!remote) return { kind: "here", path: word };
  // An empty path is the directory where the sandbox's commands start.
  return { kind: "sandbox", id: remote[1] ?? "", path: remote[2] || "." };
}

/** Whether `path` says "the contents of": `dir/.` */
export function isContents(path: string): boolean {
  return path === "." || path.endsWith("/.");
}

/**
 * Where a copy of `from` at `to` goes, by the rules of cp: into a directory that exists, under its own name; else it
 * becomes `to`. A trailing slash says that `to` is a directory.
 */
export function destinationOf(from: string, to: string, toIsDirectory: boolean): string {
  if (isContents(from)) return to;
  if (!toIsDirectory && !to.endsWith("/")) return to;
  return `${to.replace(/\/+$/, "")}/${basename(from)}`;
}
