import type { ProcessEnd, ProcessSpec } from "../../protocol/agent.ts";
import { type ErrorCode, SandboxError } from "../../protocol/errors.ts";
import type { GitCheckoutBody, GitCheckoutResult } from "../../protocol/file.ts";
import type { EventOutput } from "../../protocol/verbs.ts";
import type { ServeTable } from "./call.ts";
import { environmentOf } from "./environment.ts";
import { openProcess } from "./process-log.ts";
import { workspace } from "./paths.ts";
import type { Run } from "./run.ts";

type GitEvent = EventOutput<"gitCheckout">;

export const gitVerbs: ServeTable<"gitCheckout"> = {
  async gitCheckout(run, { body }, { signal }) {
    requireGitUrl(body.url);
    return checkout(run, body, signal);
  },
};

async function* checkout(
  run: Run,
  body: GitCheckoutBody,
  signal: AbortSignal,
): AsyncGenerator<{ event: GitEvent }, void, undefined> {
  const targetDir = body.targetDir ?? `${workspace}/${repositoryName(body.url)}`;
  let words = "";
  for await (const part of runGit(run, body, cloneArgs(body, targetDir), signal)) {
    if (typeof part !== "string") {
      if (part.exitCode !== 0) throw cloneError(body, part, words);
      break;
    }
    words = (words + part).slice(-16_384); // git's own last words are what tells the failure
    yield { event: { type: "progress", text: part } };
  }
  const branch = body.branch ?? (await currentBranch(run, body, targetDir, signal));
  const result: GitCheckoutResult = {
    success: true,
    repoUrl: body.url,
    branch,
    targetDir,
    timestamp: new Date().toISOString(),
  };
  yield { event: { type: "complete", result } };
}

function cloneArgs(body: GitCheckoutBody, targetDir: string): string[] {
  return [
    "clone",
    "--progress",
    ...(body.branch === undefined ? [] : ["--branch", body.branch]),
    ...(body.depth === undefined ? [] : ["--depth", String(body.depth)]),
    "--",
    body.url,
    targetDir,
  ];
}

async function currentBranch(run: Run, body: GitCheckoutBody, targetDir: string, signal: AbortSignal): Promise<string> {
  let branch = "";
  const args = ["-C", targetDir, "rev-parse", "--abbrev-ref", "HEAD"];
  for await (const part of runGit(run, { ...body, processId: `${body.processId.slice(0, 58)}.head` }, args, signal)) {
    if (typeof part === "string") branch += part;
  }
  return branch.trim();
}

/** Git's words as they come, then its end. It never asks: nobody is there to answer. */
async function* runGit(
  run: Run,
  body: GitCheckoutBody,
  args: string[],
  signal: AbortSignal,
): AsyncGenerator<string | ProcessEnd, void, undefined> {
  const spec: ProcessSpec = {
    id: body.processId,
    command: { argv: ["git", ...args], session: body.session },
    env: environmentOf(run.record),
    callEnv: {
      LC_ALL: "C",
      GIT_TERMINAL_PROMPT: "0",
      GIT_SSH_COMMAND: "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new",
    },
    defaultCwd: workspace,
    stdin: "none",
    stderr: "merge",
    mode: "keep",
    timeoutMs: body.cloneTimeoutMs,
    note: { command: `git ${args[0]}`, background: false },
  };
  const decoder = new TextDecoder();
  for await (const entry of await openProcess(run, spec, 0, signal)) {
    if (entry.type === "output") yield decoder.decode(entry.bytes, { stream: true });
    if (entry.type === "ended") yield entry.end;
  }
}

/** Schemes that git speaks itself. `ext::` and the like run programs, a leading hyphen is an option. */
const schemes = /^(https?|ssh|git|file):\/\/[^\s]+$/i;
const scpLike = /^[A-Za-z0-9_.+-]+@[A-Za-z0-9.-]+:[^\s:][^\s]*$/;
const localPath = /^\/[^\0\n]*$/;

function requireGitUrl(url: string): void {
  if (schemes.test(url) || scpLike.test(url) || localPath.test(url)) return;
  throw new SandboxError(
    "INVALID_GIT_URL",
    `Cannot clone ${JSON.stringify(withoutPassword(url).slice(0, 200))}: it is no address that git knows`,
    {
      suggestion: "Use https://, ssh://, git@host:path or an absolute path inside the sandbox",
    },
  );
}

function repositoryName(url: string): string {
  const last =
    url
      .replace(/[?#].*$/, "")
      .replace(/\/+$/, "")
      .split(/[/:]/)
      .pop() ?? "";
  const name = last.replace(/\.(git|bundle)$/, "");
  return /^[A-Za-z0-9._-]+$/.test(name) && name !== "." && name !== ".." ? name : "repository";
}

/** The words of git, ssh and well-known hosts for each failure, the most telling first. */
const failures: [RegExp, ErrorCode][] = [
  [/Remote branch .* not found|Could not find remote branch/i, "GIT_BRANCH_NOT_FOUND"],
  [
    // ssh names every way to log in that the host has: "git@host: Permission denied (publickey,password)."
    /could not read (Username|Password)|Authentication failed|^(\S+: )*Permission denied \([a-z0-9,@.-]+\)|terminal prompts disabled|error: 40[13]|HTTP Basic: Access denied/im,
    "GIT_AUTH_FAILED",
  ],
  [
    // GitHub and Bitbucket, by ssh and as "remote: …" before git's own words; GitLab
    /^([\w ]+: )*(Repository not found\b|The project you were looking for could not be found\b)/im,
    "GIT_REPOSITORY_NOT_FOUND",
  ],
  [
    /repository .* not found|does not appear to be a git repository|does not exist|not found: did you run|error: 404/i,
    "GIT_REPOSITORY_NOT_FOUND",
  ],
  [/already exists and is not an empty directory/i, "FILE_EXISTS"],
  [/No space left on device|Disk quota exceeded/i, "NO_SPACE"],
  [
    /Could not resolve host|Failed to connect|Connection (refused|reset|timed out)|Network is unreachable|gnutls_handshake|SSL|TLS|early EOF|RPC failed|unable to access|error: 5\d\d/i,
    "GIT_NETWORK_ERROR",
  ],
];

/** What a clone failed by, as its words tell. Names that git quotes are the user's: a directory may be called "not found". */
export function failureOf(words: string): ErrorCode {
  const own = words.replace(/(?<=\s)'.*'/g, "''");
  return failures.find(([pattern]) => pattern.test(own))?.[1] ?? "GIT_CLONE_FAILED";
}

function cloneError(body: GitCheckoutBody, end: ProcessEnd, words: string): SandboxError {
  const said = lastWords(words);
  const cannot = `Cannot clone "${withoutPassword(body.url)}"`;
  if (end.reason === "timeout") {
    return new SandboxError("GIT_NETWORK_ERROR", `${cannot}: it took longer than ${body.cloneTimeoutMs} ms`, {
      suggestion: "Give a longer cloneTimeoutMs, or a depth",
    });
  }
  if (end.reason !== undefined)
    return new SandboxError("OPERATION_INTERRUPTED", `${cannot}: it was ended (${end.reason})`);
  return new SandboxError(failureOf(words), `${cannot}: ${said}`, { details: { exitCode: end.exitCode } });
}

/** What git said without its progress lines. */
function lastWords(words: string): string {
  const lines = words.split(/[\r\n]+/).map((line) => line.trim());
  const telling = lines.filter((line) => /^(fatal|error|warning|remote|ssh|\S+: Permission denied)/i.test(line));
  return withoutPassword((telling.length > 0 ? telling : lines.filter((line) => line !== "").slice(-3)).join("; "));
}

/** Error messages and logs must not carry what stands before the @ of a URL. */
function withoutPassword(text: string): string {
  return text.replace(/(\w+:\/\/)[^@/\s]+@/g, "$1…@");
}
