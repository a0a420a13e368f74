import type { IncomingMessage, ServerResponse } from "node:http";
import type { ErrorCode, SandboxError } from "../../protocol/errors.ts";

/** What a visitor sees when the preview cannot be shown. */
export type Trouble = {
  status: number;
  title: string;
  /** Sentences. What comes from a sandbox may be in them: they are escaped. */
  words: string[];
  retryAfterS?: number;
  error: SandboxError;
};

/** How soon a page that says "not yet" looks again. */
const retryAfterS = 2;

const titles: Partial<Record<ErrorCode, { status: number; title: string; words?: string }>> = {
  PORT_NOT_EXPOSED: {
    status: 404,
    title: "There is no preview here",
    words: "The address is wrong, or its owner has taken it back.",
  },
  UNAUTHORIZED: { status: 401, title: "This preview needs a bearer token" },
  VALIDATION_FAILED: { status: 400, title: "The request cannot be passed on" },
  SERVICE_NOT_RESPONDING: { status: 502, title: "Nothing answers here" },
};

/** What went wrong, in a visitor's words. */
export function troubleOf(error: SandboxError): Trouble {
  const known = titles[error.code];
  if (known) return { status: known.status, title: known.title, words: [known.words ?? error.message], error };
  if (!error.retryable) {
    return { status: error.httpStatus, title: "The preview cannot be shown", words: [error.message], error };
  }
  const words = [error.message, "It is tried again in a moment."];
  return { status: 503, title: "The sandbox is not ready", words, retryAfterS, error };
}

/**
 * Answers with a page for people, JSON for programs that want it (`forProgram`: whatever they say), plain text for the rest.
 * Nothing of it is kept.
 */
export function showTrouble(
  request: IncomingMessage,
  response: ServerResponse,
  trouble: Trouble,
  forProgram = false,
): void {
  const accept = forProgram ? "application/json" : (request.headers.accept ?? "");
  const [type, body] = accept.includes("text/html")
    ? ["text/html; charset=utf-8", page(trouble)]
    : accept.includes("application/json")
      ? ["application/json", JSON.stringify(trouble.error)]
      : ["text/plain; charset=utf-8", `${trouble.title}\n\n${trouble.words.join("\n")}\n`];
  const bytes = Buffer.from(body);
  response.writeHead(trouble.status, {
    "content-type": type,
    "content-length": bytes.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "atoll-error": trouble.error.code,
    ...(trouble.retryAfterS !== undefined && { "retry-after": String(trouble.retryAfterS) }),
    ...(trouble.status === 401 && { "www-authenticate": "Bearer" }),
    // a body that nobody read is still on its way: the connection cannot carry another request
    ...(!request.complete && { connection: "close" }),
  });
  response.end(bytes);
}

function page({ title, words, status, retryAfterS: seconds }: Trouble): string {
  const refresh = seconds === undefined ? "" : `<meta http-equiv="refresh" content="${seconds}">`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">${refresh}
<title>${escape(title)}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem;color:#222;background:#fff}
small{color:#777}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}</style></head>
<body><h1>${escape(title)}</h1>${words.map((text) => `<p>${escape(text)}</p>`).join("")}<small>Atoll, ${status}</small></body></html>
`;
}

function escape(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (char) => names[char] ?? "");
}
