import type { z } from "zod";
import { errorTable, SandboxError, type ErrorCode } from "../../protocol/errors.ts";
import type { VerbShape } from "../../protocol/verbs.ts";

/** Longest JSON body: commands and environments of a megabyte fit with room; files go as bytes. */
export const jsonLimitBytes = 16 * 1024 * 1024;

/** The request as the table of verbs describes it. Throws VALIDATION_FAILED, or the code that a schema names. */
export async function parseInput(verb: VerbShape, request: Request, params: Record<string, string>) {
  const query = Object.fromEntries(new URL(request.url).searchParams);
  return {
    params: parse(verb.params, params, "path"),
    query: parse(verb.query, query, "query"),
    body: await parseBody(verb, request),
  };
}

async function parseBody(verb: VerbShape, request: Request): Promise<unknown> {
  if (verb.body === undefined) return undefined;
  if (verb.body === "bytes") return request.body ?? new Blob([]).stream();
  const text = await readText(request);
  // no body is an empty object, so that a verb whose fields all have defaults needs none
  return parse(verb.body, text === "" ? {} : parseJson(text), "body");
}

/** The value as the schema describes it; `where` it stands in a request, for the error. */
export function parse<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const at = [where, ...issue.path].join(".");
  throw new SandboxError(codeOf(issue), `Cannot use ${at}: ${issue.message}`, {
    details: {
      issues: parsed.error.issues
        .slice(0, 10)
        .map(({ path, message }) => ({ path: [where, ...path].join("."), message })),
    },
  });
}

/** A schema may name a code more telling than VALIDATION_FAILED. */
function codeOf(issue: z.core.$ZodIssue): ErrorCode {
  const code: unknown = issue.code === "custom" ? issue.params?.["code"] : undefined;
  return typeof code === "string" && code in errorTable ? (code as ErrorCode) : "VALIDATION_FAILED";
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SandboxError("VALIDATION_FAILED", `Cannot read the body: ${(cause as Error).message}`, { cause });
  }
}

async function readText(request: Request): Promise<string> {
  const tooLarge = () =>
    new SandboxError("PAYLOAD_TOO_LARGE", `Cannot read the body: it has more than ${jsonLimitBytes} bytes`, {
      suggestion: "Send large data with writeFile or as standard input",
    });
  const lengthBytes = request.headers.get("content-length");
  if (Number(lengthBytes ?? 0) > jsonLimitBytes) throw tooLarge();
  // The server reads no more than was announced; what was not is counted as it comes, at three times the cost.
  if (lengthBytes !== null) return request.text();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of (request.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > jsonLimitBytes) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
