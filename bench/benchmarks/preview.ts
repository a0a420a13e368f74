import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { getSandbox, type Sandbox } from "../../sdk/index.ts";
import { type Benchmark, type Contestant, interleave, type Row } from "../benchmark.ts";
import type { Load, Loaded } from "../http-load.ts";
import { call } from "../peers/program.ts";

const rounds = 8;
const secondsEach = 1;
/** Rounds before the first that counts: V8 compiles what runs often, and a daemon runs for weeks. */
const warmUps = 4;

/** As many as three browsers open to one host. */
const connections = 16;

const answers = [
  { name: "100 B", port: 3000, path: "/100" },
  { name: "10 kB", port: 3000, path: "/10000" },
  { name: "100 kB", port: 3000, path: "/100000" },
  { name: "1 MB", port: 3000, path: "/1000000" },
  { name: "a module of Vite's", port: 5173, path: "/main.js" },
];

export const preview: Benchmark = {
  name: "preview",
  about: `GET of Node servers in a sandbox through their URLs against straight to their ports, by the same client in the sandbox's network namespace; ${connections} connections kept alive, then one`,
  async measure({ connection }) {
    await using cleanup = new AsyncDisposableStack();
    const sandbox = getSandbox(connection, "preview", { instance: "standard-2" });
    cleanup.defer(async () => void (await sandbox.destroy()));
    await startServers(sandbox);
    const urls = new Map<number, URL>();
    for (const { port } of answers) urls.set(port, new URL((await sandbox.exposePort(port)).url));
    const namespace = await namespaceOf(sandbox);
    const address = "127.0.0.1";
    const through = (port: number) => ({ address, port: Number(urls.get(port)!.port), host: urls.get(port)!.host });
    const straight = (port: number) => ({ address, port, host: `localhost:${port}` });
    const load = async (what: Omit<Load, "seconds">, ...front: string[]) => {
      const program = [globalThis.process.execPath, join(import.meta.dirname, "../http-load.ts")];
      const words = [...front, ...program, JSON.stringify({ ...what, seconds: secondsEach })];
      return JSON.parse(await call(words[0]!, ...words.slice(1))) as Loaded;
    };
    const viaUrl = (port: number, path: string, connections: number) => load({ ...through(port), path, connections });
    const viaPort = (port: number, path: string, connections: number) =>
      load({ ...straight(port), path, connections }, "nsenter", `--net=${namespace}`);

    const rates = answers.flatMap(({ name, port, path }): Contestant[] => [
      ...[
        { what: `straight to the port, ${name}`, ask: viaPort },
        { what: `preview, ${name}`, ask: viaUrl },
      ].map(({ what, ask }): Contestant => ({
        what,
        unit: "req/s",
        group: name,
        round: async () => (await ask(port, path, connections)).perSecond,
      })),
    ]);
    const waits = [
      { what: "straight to the port, 100 B, one connection", ask: viaPort },
      { what: "preview, 100 B, one connection", ask: viaUrl },
    ].map(({ what, ask }): Contestant => ({
      what,
      group: "latency",
      round: async () => (await ask(3000, "/100", 1)).latencyMs,
    }));
    for (const { port, path } of answers) {
      for (let at = 0; at < warmUps; at++) for (const ask of [viaPort, viaUrl]) await ask(port, path, connections);
    }
    const rows = await interleave([...rates, ...waits], rounds);
    return [...rows, ...answers.map(({ name }) => share(name, rows))];
  },
};

function share(name: string, rows: readonly Row[]): Row {
  const [straight, ours] = rows.filter(({ group }) => group === name);
  return {
    what: `port / preview, ${name}`,
    unit: "x",
    group: `share ${name}`,
    samples: straight!.samples.map((perSecond, round) => perSecond / ours!.samples[round]!),
    budget: "preview against the port",
  };
}

async function startServers(sandbox: Sandbox): Promise<void> {
  await sandbox.writeFile("/workspace/server.mjs", server);
  const process = await sandbox.startProcess("node server.mjs");
  const [project, install] = ["/workspace/page", "npm install --no-audit --no-fund --loglevel=error vite@8"];
  for (const [name, text] of Object.entries(page)) await sandbox.writeFile(`${project}/${name}`, text);
  const installed = await sandbox.exec(install, { cwd: project });
  if (installed.exitCode !== 0) throw new Error(`Cannot measure: Vite is not to be had: ${installed.stderr}`);
  const vite = await sandbox.startProcess("npx vite --host 127.0.0.1 --port 5173 --strictPort", { cwd: project });
  await process.waitForPort(3000, { path: "/100" });
  await vite.waitForPort(5173, { path: "/main.js" });
}

/** Of the host's names for network namespaces, the one of this sandbox. */
async function namespaceOf(sandbox: Sandbox): Promise<string> {
  const { stdout } = await sandbox.exec("readlink", ["/proc/self/ns/net"]);
  for (const name of await readdir("/run/netns")) {
    const path = `/run/netns/${name}`;
    if (stdout.trim() === `net:[${(await stat(path)).ino}]`) return path;
  }
  throw new Error("Cannot measure: the sandbox's network namespace has no name");
}

const page = {
  "package.json": JSON.stringify({ name: "page", private: true, type: "module" }),
  "index.html": `<!doctype html><h1></h1><script type="module" src="/main.js"></script>`,
  "main.js": `document.querySelector("h1").textContent = "page";`,
};

/** Answers as many bytes as the path says. */
const server = `
import http from "node:http";
http.createServer(({ url }, response) => {
  const body = Buffer.alloc(Number(url.slice(1)), "x");
  response.writeHead(200, { "content-type": "text/plain", "content-length": body.length }).end(body);
}).listen(3000, "127.0.0.1");
`;
