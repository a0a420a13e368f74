import { SandboxError } from "../protocol/errors.ts";
import type { FileInfo } from "../protocol/file.ts";
import { base64ToBytes, bytesToBase64, sendable, type Content } from "./bytes.ts";
import type { Download } from "./download.ts";
import type {
  ExistsResult,
  FileResult,
  ListFilesOptions,
  ListFilesResult,
  MoveResult,
  ReadFileResult,
  ReadFileStreamResult,
  WriteFileOptions,
} from "./file-types.ts";
import { mimeTypeOf } from "./mime.ts";
import { callIn, now, type Scope } from "./scope.ts";

// Contracts: SessionMethods.

export async function writeFile(
  scope: Scope,
  path: string,
  content: Content,
  options: WriteFileOptions,
): Promise<FileResult> {
  const { mode, encoding } = options;
  requireEncoding("write", path, encoding, ["utf-8", "utf8", "base64"]);
  const query = {
    ...at(scope, path),
    ...(mode !== undefined && { mode: typeof mode === "number" ? mode.toString(8) : mode }),
  };
  const body = await sendable(decoded(path, content, encoding));
  await callIn(scope, "writeFile", { query, body });
  return { success: true, path, timestamp: now() };
}

/** A misspelt encoding must not be taken for text: what is written or read would be something else than was meant. */
function requireEncoding(verb: "read" | "write", path: string, encoding: unknown, known: readonly string[]): void {
  if (encoding === undefined || known.includes(encoding as string)) return;
  const names = known.map((name) => `"${name}"`);
  const all = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  throw new SandboxError(
    "VALIDATION_FAILED",
    `Cannot ${verb} ${JSON.stringify(path)}: its encoding is ${all}, not ${JSON.stringify(encoding)}`,
  );
}

function decoded(path: string, content: Content, encoding: WriteFileOptions["encoding"]): Content {
  if (encoding !== "base64") return content;
  // Node reads whatever it can of a text that is no base64; half a file is worse than an error.
  if (typeof content !== "string" || !/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(content)) {
    throw new SandboxError("VALIDATION_FAILED", `Cannot write ${JSON.stringify(path)}: its content is no base64 text`);
  }
  return base64ToBytes(content);
}

function at(scope: Scope, path: string): { path: string; session: string } {
  return { path, session: scope.directory };
}

/** The file as a download that goes on by itself after a loss, and its description. */
export async function openFile(scope: Scope, path: string): Promise<Download & { file: FileInfo }> {
  await scope.ready();
  const call = { params: { sandbox: scope.sandbox }, query: at(scope, path) };
  const download = await scope.transport.bytes("readFile", call, { resumable: true });
  const described = download.headers.get("atoll-file");
  if (described === null) {
    await download.body.cancel();
    throw new SandboxError("INTERNAL_ERROR", `Cannot read ${JSON.stringify(path)}: the answer does not describe it`);
  }
  return { ...download, file: JSON.parse(described) as FileInfo };
}

export async function readFile(
  scope: Scope,
  path: string,
  encoding: "utf-8" | "utf8" | "base64" | "none" | undefined,
): Promise<ReadFileResult | ReadFileStreamResult> {
  requireEncoding("read", path, encoding, ["utf-8", "utf8", "base64", "none"]);
  const { body, file } = await openFile(scope, path);
  if (encoding === "none") {
    const mimeType = mimeTypeOf(file.name, true);
    return { success: true, path, content: body, encoding, mimeType, size: file.size, timestamp: now() };
  }
  const bytes = new Uint8Array(await new Response(body as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer());
  const text = textOf(bytes);
  const isBinary = text === undefined;
  const inBase64 = encoding === "base64" || (isBinary && encoding === undefined);
  return {
    success: true,
    path,
    content: inBase64 ? bytesToBase64(bytes) : (text ?? new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)),
    encoding: inBase64 ? "base64" : "utf-8",
    isBinary,
    mimeType: mimeTypeOf(file.name, isBinary),
    size: bytes.length,
    timestamp: now(),
  };
}

/** The bytes as text, or undefined when they are something else. Text has no NUL. */
function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined; // no UTF-8
  }
}

export async function stat(scope: Scope, path: string): Promise<FileInfo> {
  return callIn(scope, "statFile", { query: at(scope, path) });
}

export async function exists(scope: Scope, path: string): Promise<ExistsResult> {
  let found = true;
  try {
    await stat(scope, path);
  } catch (error) {
    if (!SandboxError.is(error, "FILE_NOT_FOUND") && !SandboxError.is(error, "NOT_DIRECTORY")) throw error;
    found = false;
  }
  return { success: true, path, exists: found, timestamp: now() };
}

export async function listFiles(scope: Scope, path: string, options: ListFilesOptions): Promise<ListFilesResult> {
  await scope.ready();
  const { recursive = false, includeHidden = false } = options;
  const query = {
    ...at(scope, path),
    recursive: recursive ? ("true" as const) : ("false" as const),
    includeHidden: includeHidden ? ("true" as const) : ("false" as const),
  };
  const files: FileInfo[] = [];
  const onRestart = () => void (files.length = 0);
  const events = scope.transport.events("listFiles", { params: { sandbox: scope.sandbox }, query }, { onRestart });
  for await (const { event } of events) if (event.type === "files") for (const file of event.files) files.push(file);
  return { success: true, path, files, count: files.length, timestamp: now() };
}

export async function mkdir(scope: Scope, path: string, options: { recursive?: boolean }): Promise<FileResult> {
  await callIn(scope, "mkdir", { body: { ...at(scope, path), recursive: options.recursive ?? false } });
  return { success: true, path, timestamp: now() };
}

export async function deleteFile(scope: Scope, path: string, options: { recursive?: boolean }): Promise<FileResult> {
  await callIn(scope, "deleteFile", { body: { ...at(scope, path), recursive: options.recursive ?? false } });
  return { success: true, path, timestamp: now() };
}

export async function moveFile(scope: Scope, path: string, newPath: string): Promise<MoveResult> {
  await callIn(scope, "moveFile", { body: { ...at(scope, path), to: newPath } });
  return { success: true, path, newPath, timestamp: now() };
}

export async function uploadArchive(scope: Scope, path: string, archive: Content): Promise<FileResult> {
  await callIn(scope, "uploadArchive", { query: at(scope, path), body: await sendable(archive) });
  return { success: true, path, timestamp: now() };
}

export async function downloadArchive(scope: Scope, path: string): Promise<ReadableStream<Uint8Array>> {
  await scope.ready();
  const call = { params: { sandbox: scope.sandbox }, query: at(scope, path) };
  return (await scope.transport.bytes("downloadArchive", call, { resumable: false })).body;
}
