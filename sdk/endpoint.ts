import { SandboxError } from "../protocol/errors.ts";

/** Where a daemon is and what opens it. */
export type Endpoint = { url: string; token?: string };

/** What a program may say about the daemon it wants; what it leaves out is looked up. */
export type ConnectOptions = {
  /** Such as "http://127.0.0.1:4730". Default: ATOLL_URL, else what the machine's own daemon wrote down. */
  url?: string | undefined;
  /** Default: ATOLL_TOKEN, else what the machine's own daemon wrote down. */
  token?: string | undefined;
};

/** Written by the machine's default daemon, readable by its owner only. */
const connectionFile = "/run/atoll/connection.json";

/**
 * The daemon that `options`, the environment or the connection file name, in this order. The file is read only when
 * neither of the others gives a URL. Throws VALIDATION_FAILED for a URL or token that cannot be one,
 * SANDBOX_UNAVAILABLE when nothing says where a daemon is.
 */
export async function findEndpoint(options: ConnectOptions): Promise<Endpoint> {
  const { ATOLL_URL, ATOLL_TOKEN } = environment();
  const url = options.url ?? ATOLL_URL;
  const token = options.token ?? ATOLL_TOKEN;
  if (url !== undefined && url !== "") return endpoint(url, token);
  const written = await readConnectionFile();
  return endpoint(written.url, token ?? written.token);
}

function environment(): { ATOLL_URL?: string; ATOLL_TOKEN?: string } {
  const { process } = globalThis as { process?: { env?: { ATOLL_URL?: string; ATOLL_TOKEN?: string } } };
  return process?.env ?? {};
}

/** Throws VALIDATION_FAILED unless `url` is an http URL and `token`, if any, can stand in a header. */
export function endpoint(url: string, token: string | undefined): Endpoint {
  const parsed = parse(url);
  if (!parsed || (parsed.protocol !== "http:" && parsed.protocol !== "https:")) {
    throw new SandboxError("VALIDATION_FAILED", `Cannot connect to ${JSON.stringify(url)}: not an http or https URL`, {
      suggestion: 'Give the daemon\'s address, such as "http://127.0.0.1:4730"',
    });
  }
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new SandboxError(
      "VALIDATION_FAILED",
      "Cannot use the token: it is empty or has characters that no token has",
    );
  }
  const base = parsed.href.replace(/[?#].*$/, "").replace(/\/+$/, "");
  return { url: base, ...(token !== undefined && { token }) };
}

function parse(url: string): URL | undefined {
  try {
    return new URL(url);
  } catch {
    return undefined; // what is wrong is said by the caller, in its own words
  }
}

async function readConnectionFile(): Promise<{ url: string; token?: string }> {
  try {
    // By a variable: bundlers for browsers and Workers would otherwise look for the module and fail.
    const fs = "node:fs/promises";
    const { readFile } = (await import(fs)) as { readFile: (path: string, encoding: "utf8") => Promise<string> };
    const written = JSON.parse(await readFile(connectionFile, "utf8")) as { url?: unknown; token?: unknown };
    if (typeof written.url !== "string") throw new TypeError("it holds no url");
    return { url: written.url, ...(typeof written.token === "string" && { token: written.token }) };
  } catch (error) {
    throw new SandboxError(
      "SANDBOX_UNAVAILABLE",
      `Cannot find a daemon: no url was given, ATOLL_URL is not set and ${connectionFile} cannot be read: ${wordsOf(error)}`,
      { suggestion: 'Start one with "atoll up", or set ATOLL_URL and ATOLL_TOKEN', cause: error },
    );
  }
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
