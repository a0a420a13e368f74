import type { FileInfo } from "../protocol/file.ts";

export type { FileInfo };

/** What changed: `path` as it was given. */
export type FileResult = { success: true; path: string; timestamp: string };

/** What moved from `path` to `newPath`, both as they were given. */
export type MoveResult = { success: true; path: string; newPath: string; timestamp: string };

/** A file in memory. */
export type ReadFileResult = {
  success: true;
  path: string;
  /** Text, or base64 where `encoding` says so. */
  content: string;
  encoding: "utf-8" | "base64";
  /** Whether the file is something other than UTF-8 text. */
  isBinary: boolean;
  mimeType: string;
  /** In bytes. */
  size: number;
  timestamp: string;
};

/** A file as it comes. */
export type ReadFileStreamResult = {
  success: true;
  path: string;
  content: ReadableStream<Uint8Array>;
  encoding: "none";
  mimeType: string;
  /** In bytes, when it was opened. */
  size: number;
  timestamp: string;
};

export type ExistsResult = { success: true; path: string; exists: boolean; timestamp: string };

export type ListFilesResult = { success: true; path: string; files: FileInfo[]; count: number; timestamp: string };

export type WriteFileOptions = {
  /** "base64": `content` is text in base64 and its bytes are written. Default "utf-8". */
  encoding?: "utf-8" | "utf8" | "base64" | undefined;
  /** Permission bits, such as 0o755 or "755". Default: those of the file that is replaced, else 0o644. */
  mode?: number | string | undefined;
};

export type ListFilesOptions = {
  /** Also what is in the directories below. Default false. */
  recursive?: boolean | undefined;
  /** Also names that begin with a dot. Default false. */
  includeHidden?: boolean | undefined;
};

/** What is known of a file before its content comes. */
export type FileMetadata = { mimeType: string; size: number; isBinary: boolean; encoding: "utf-8" | "base64" };

/** The events of readFileStream. A chunk's data is text, or base64 where the metadata's encoding says so. */
export type FileStreamEvent =
  | ({ type: "metadata" } & FileMetadata)
  | { type: "chunk"; data: string }
  | { type: "complete"; bytesRead: number }
  | { type: "error"; error: string };

/** Text of a text file, bytes of any other. */
export type FileChunk = string | Uint8Array;
