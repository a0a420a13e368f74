import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { run } from "../../daemon/linux/run.ts";

export type GitServerOptions = {
  /** Address to listen on; default 127.0.0.1. */
  host?: string;
  /** Default: any that is free. */
  port?: number;
  /** Asked for by every repository whose name begins with "private"; default { user: "user", password: "secret" }. */
  login?: { user: string; password: string };
};

export type GitServer = AsyncDisposable & {
  /** "http://127.0.0.1:PORT", without a slash at the end. Repositories are below it: `${url}/fixture.git`. */
  url: string;
  port: number;
  /** Method and path with query of each request so far. */
  requests: string[];
  /** Makes `NAME.git` with one commit of these files on its branch `main`; a name may hold slashes. Gives its URL. */
  repository(name: string, files: Record<string, string | Uint8Array>): Promise<string>;
  /** The same, of a directory as it is, without its .git and node_modules. */
  repositoryOf(name: string, directory: string): Promise<string>;
  /** Adds a commit with these files to a branch, made from `main` when it is new. Gives the commit's hash. */
  commit(name: string, files: Record<string, string | Uint8Array>, branch?: string): Promise<string>;
};

/** A real git server over smart HTTP: git's own http-backend behind node:http, with repositories in a temporary directory. */
export async function gitServer(options: GitServerOptions = {}): Promise<GitServer> {
  const { host = "127.0.0.1", port = 0, login = { user: "user", password: "secret" } } = options;
  const root = await mkdtemp(join(tmpdir(), "atoll-git-"));
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    if (isPrivate(request.url) && request.headers.authorization !== basic(login)) {
      response.writeHead(401, { "www-authenticate": 'Basic realm="git"' }).end("Login needed\n");
      return;
    }
    backend(join(root, "served"), request, response);
  });
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(port, host, resolve));
  const address = server.address() as AddressInfo;
  const url = `http://${host.includes(":") ? `[${host}]` : host}:${address.port}`;
  const git = (name: string, ...args: string[]) =>
    run("git", ["-C", join(root, "work", name), ...args], { env: identity });
  const publish = async (name: string, fill: (work: string) => Promise<void>, branch: string) => {
    await fill(join(root, "work", name));
    await git(name, "add", "--all", "--force");
    await git(name, "commit", "--quiet", "--allow-empty", "--message", `Change ${branch}`);
    await git(name, "push", "--quiet", "origin", branch);
    return (await git(name, "rev-parse", "HEAD")).trim();
  };
  const create = async (name: string, fill: (work: string) => Promise<void>) => {
    const served = join(root, "served", `${name}.git`);
    const work = join(root, "work", name);
    await mkdir(work, { recursive: true });
    await run("git", ["init", "--quiet", "--bare", "--initial-branch=main", served], { env: identity });
    await run("git", ["init", "--quiet", "--initial-branch=main", work], { env: identity });
    await git(name, "remote", "add", "origin", served);
    await publish(name, fill, "main");
    return `${url}/${name}.git`;
  };
  return {
    url,
    port: address.port,
    requests,
    repository: (name, files) => create(name, (work) => write(work, files)),
    repositoryOf: (name, directory) => create(name, (work) => copy(directory, work)),
    async commit(name, files, branch = "main") {
      const exists = (await git(name, "branch", "--list", branch)).trim() !== "";
      await git(name, "switch", "--quiet", ...(exists ? [branch] : ["--create", branch, "main"]));
      return publish(name, (work) => write(work, files), branch);
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** Nothing of the machine's own git settings counts. */
const identity = {
  PATH: "/usr/local/bin:/usr/bin:/bin",
  LC_ALL: "C",
  HOME: "/nonexistent",
  GIT_CONFIG_NOSYSTEM: "1",
  ...{ GIT_AUTHOR_NAME: "Test", GIT_AUTHOR_EMAIL: "test@example.com" },
  ...{ GIT_COMMITTER_NAME: "Test", GIT_COMMITTER_EMAIL: "test@example.com" },
};

async function write(work: string, files: Record<string, string | Uint8Array>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(work, name)), { recursive: true });
    await writeFile(join(work, name), content);
  }
}

async function copy(from: string, to: string): Promise<void> {
  const filter = (path: string) => !/\/(\.git|node_modules)$/.test(path);
  await cp(from, to, { recursive: true, verbatimSymlinks: true, filter });
}

function isPrivate(url = ""): boolean {
  return url.startsWith("/private");
}

function basic({ user, password }: { user: string; password: string }): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

/** One request through `git http-backend`, by the rules of CGI (RFC 3875). */
function backend(served: string, request: IncomingMessage, response: ServerResponse): void {
  const [path = "/", query = ""] = (request.url ?? "/").split(/\?(.*)/s);
  const { headers } = request;
  const child = spawn("git", ["http-backend"], {
    stdio: ["pipe", "pipe", "ignore"],
    env: {
      ...identity,
      GIT_PROJECT_ROOT: served,
      GIT_HTTP_EXPORT_ALL: "1",
      REQUEST_METHOD: request.method ?? "GET",
      PATH_INFO: decodeURIComponent(path),
      QUERY_STRING: query,
      REMOTE_ADDR: request.socket.remoteAddress ?? "",
      ...(headers["content-type"] && { CONTENT_TYPE: headers["content-type"] }),
      ...(headers["content-length"] && { CONTENT_LENGTH: headers["content-length"] }),
      ...(headers["content-encoding"] && { HTTP_CONTENT_ENCODING: headers["content-encoding"] }),
      ...(typeof headers["git-protocol"] === "string" && { GIT_PROTOCOL: headers["git-protocol"] }),
    },
  });
  // It may answer without reading the whole request; a client that leaves ends it.
  child.stdin.on("error", () => {});
  request.pipe(child.stdin);
  response.once("close", () => child.kill());
  child.once("error", () => response.destroy());

  let head = Buffer.alloc(0);
  const readHead = (chunk: Buffer) => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf("\r\n\r\n");
    if (end < 0) return;
    child.stdout.off("data", readHead).pause();
    const lines = head.subarray(0, end).toString("latin1").split("\r\n");
    const fields = lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    });
    const status = fields.find(([name]) => name === "status")?.[1];
    response.writeHead(Number.parseInt(status ?? "200", 10), fields.filter(([name]) => name !== "status").flat());
    response.write(head.subarray(end + 4));
    child.stdout.pipe(response);
  };
  child.stdout.on("data", readHead);
  child.stdout.once("end", () => {
    if (!response.headersSent) response.writeHead(500).end("git http-backend said nothing\n");
  });
}
