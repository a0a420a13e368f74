import { z } from "zod";
import { AgentFile, FileLine } from "../../protocol/agent.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { FileInfo } from "../../protocol/file.ts";
import type { EventOutput } from "../../protocol/verbs.ts";
import { unreachable } from "../link/connect.ts";
import { parseAnswer } from "../link/link.ts";
import type { BytesAnswer, ServeTable } from "./call.ts";
import { isoTime } from "./iso-time.ts";
import type { Run } from "./run.ts";

type Verb =
  | "statFile"
  | "readFile"
  | "writeFile"
  | "listFiles"
  | "mkdir"
  | "deleteFile"
  | "moveFile"
  | "uploadArchive"
  | "downloadArchive";

/** Files are read and written by the agent, inside; the daemon only passes bytes and never opens a path of a sandbox. */
export const fileVerbs: ServeTable<Verb> = {
  async statFile(run, { query }, { signal }) {
    return toInfo(await run.link.call(AgentFile, "/files/stat", { query, signal }));
  },

  async readFile(run, { query }, { signal, range, ifRange }) {
    const headers = { ...(range !== undefined && { range }), ...(ifRange !== undefined && { "if-range": ifRange }) };
    return download(run, "/files/content", query, signal, headers);
  },

  async writeFile(run, { query, body }, { signal }) {
    const options = { method: "PUT", query, body, signal, answerWithinMs: false } as const;
    return toInfo(await run.link.call(AgentFile, "/files/content", options));
  },

  async listFiles(run, { query }, { signal }) {
    const { path, session, recursive, includeHidden: hidden } = query;
    const response = await run.link.open("/files/list", { query: { path, session, recursive, hidden }, signal });
    return inParts(response.setEncoding("utf8") as AsyncIterable<string>, path);
  },

  async mkdir(run, { body }, { signal }) {
    return toInfo(await run.link.call(AgentFile, "/files/mkdir", { method: "POST", json: body, signal }));
  },

  async deleteFile(run, { body }, { signal }) {
    const options = { method: "POST", json: body, signal, answerWithinMs: false } as const; // a large tree takes its time
    return run.link.call(z.object({}), "/files/remove", options);
  },

  async moveFile(run, { body }, { signal }) {
    const options = { method: "POST", json: body, signal, answerWithinMs: false } as const; // between mounts it copies
    return toInfo(await run.link.call(AgentFile, "/files/move", options));
  },

  async uploadArchive(run, { query, body }, { signal }) {
    const options = { method: "PUT", query, body, signal, answerWithinMs: false } as const;
    return run.link.call(z.object({}), "/files/archive", options);
  },

  async downloadArchive(run, { query }, { signal }) {
    return download(run, "/files/archive", query, signal, {});
  },
};

type Place = { path: string; session: string };

async function download(
  run: Run,
  from: string,
  query: Place,
  signal: AbortSignal,
  headers: Record<string, string>,
): Promise<BytesAnswer> {
  const body = await run.link.open(from, { query, signal, headers });
  const file = body.headers["atoll-file"];
  const info = typeof file === "string" ? { "atoll-file": asciiJson(toInfo(parseAnswer(AgentFile, file))) } : {};
  return {
    status: body.statusCode ?? 200,
    headers: { ...pick(body.headers, ["content-length", "content-range", "accept-ranges", "etag"]), ...info },
    body,
  };
}

/** Only what we know passes from inside to the public edge. */
function pick(headers: Record<string, unknown>, names: string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (typeof headers[name] === "string" ? [[name, headers[name]]] : [])),
  );
}

/** Headers carry ASCII only; JSON has an escape for everything else. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Entries of one event: enough that the envelope costs nothing, few enough that an event stays small. */
const entriesPerEvent = 200;

/** A path is at most 4 KiB and appears three times, escaped at worst sixfold. */
const lineLimitChars = 128 * 1024;

async function* inParts(
  chunks: AsyncIterable<string>,
  path: string,
): AsyncGenerator<{ event: EventOutput<"listFiles"> }, void, undefined> {
  let files: FileInfo[] = [];
  for await (const line of lines(chunks)) {
    const entry = parseAnswer(FileLine, line);
    if ("file" in entry) files.push(toInfo(entry.file));
    if (files.length === entriesPerEvent || ("file" in entry === false && files.length > 0)) {
      yield { event: { type: "files", files } };
      files = [];
    }
    if ("error" in entry) throw SandboxError.from(entry.error);
    if ("end" in entry) {
      yield { event: { type: "complete", count: entry.end.count, path } };
      return;
    }
  }
  throw unreachable("its listing was cut off");
}

async function* lines(chunks: AsyncIterable<string>): AsyncGenerator<string, void, undefined> {
  let rest = "";
  try {
    for await (const chunk of chunks) {
      const parts = (rest + chunk).split("\n");
      rest = parts.pop() ?? "";
      if (rest.length > lineLimitChars) throw unreachable("a line of its listing has no end");
      yield* parts;
    }
  } catch (error) {
    throw SandboxError.is(error) ? error : unreachable("its listing was cut off", error);
  }
}

function toInfo(file: AgentFile): FileInfo {
  return {
    name: file.name,
    absolutePath: file.absolutePath,
    relativePath: file.relativePath,
    type: file.type,
    size: file.size,
    modifiedAt: isoTime(file.modifiedAtMs),
    mode: modeText(file.mode),
    permissions: {
      readable: (file.mode & 0o400) !== 0,
      writable: (file.mode & 0o200) !== 0,
      executable: (file.mode & 0o100) !== 0,
    },
    ...(file.target !== undefined && { target: file.target }),
  };
}

/** Permission bits as ls prints them. */
function modeText(mode: number): string {
  const bits = [..."rwxrwxrwx"].map((letter, index) => (mode & (0o400 >> index) ? letter : "-"));
  if (mode & 0o4000) bits[2] = bits[2] === "x" ? "s" : "S";
  if (mode & 0o2000) bits[5] = bits[5] === "x" ? "s" : "S";
  if (mode & 0o1000) bits[8] = bits[8] === "x" ? "t" : "T";
  return bits.join("");
}
