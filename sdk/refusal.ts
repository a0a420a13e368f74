import { SandboxError } from "../protocol/errors.ts";
import type { VerbName } from "../protocol/verbs.ts";
import { lostBy, type Lost } from "./outage.ts";

/** The statuses with which a proxy says that the daemon behind it does not answer. */
const proxyStatuses: ReadonlySet<number> = new Set([502, 503, 504]);

/** What a daemon refused, or Lost where it was not the daemon that answered. */
export async function readRefusal(verb: VerbName, response: Response, url: string): Promise<SandboxError | Lost> {
  const text = await response.text().catch(() => ""); // the status says enough when the body breaks off
  const body = errorBody(text);
  if (body) {
    const error = SandboxError.from(body);
    error.operation ??= verb;
    return error;
  }
  if (proxyStatuses.has(response.status)) return { lost: `a proxy answered ${response.status}`, sent: true };
  return notOurs(verb, `${url} answered ${response.status} ${response.statusText}: ${shown(text)}`);
}

/** The JSON of an answer, or Lost where the connection broke within it. */
export async function readJson(verb: VerbName, response: Response): Promise<{ json: unknown } | Lost> {
  let text: string;
  try {
    text = await response.text();
  } catch (error) {
    return lostBy(error);
  }
  try {
    return { json: JSON.parse(text) as unknown };
  } catch (error) {
    throw notOurs(verb, `the answer is not JSON: ${shown(text)}`, error);
  }
}

/** The body of an event stream. Anything else, such as a login page, is not from a daemon. */
export function eventBody(verb: VerbName, response: Response): ReadableStream<Uint8Array> {
  const type = response.headers.get("content-type") ?? "nothing";
  if (response.body && type.startsWith("text/event-stream")) return response.body;
  throw notOurs(verb, `an event stream was expected, not ${type}`);
}

/** Something that no daemon says. */
export function notOurs(verb: VerbName, why: string, cause?: unknown): SandboxError {
  return new SandboxError("INTERNAL_ERROR", `Cannot ${verb}: ${why}`, {
    suggestion: "Check that the URL is that of an Atoll daemon of this version",
    operation: verb,
    cause,
  });
}

function errorBody(text: string): object | undefined {
  try {
    const body: unknown = JSON.parse(text);
    return typeof body === "object" && body !== null && "code" in body ? body : undefined;
  } catch {
    return undefined; // a proxy's page
  }
}

function shown(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
