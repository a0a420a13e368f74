import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Sandbox } from "../../sdk/index.ts";
import { type Benchmark, type Contestant, interleave, type Row } from "../benchmark.ts";
import type { Load, Loaded } from "../http-load.ts";
import { call } from "../peers/program.ts";

const rounds = 8;
const secondsEach = 1;

/** As many as three browsers open to one host. */
const connections = 16;

const answers = [
  { name: "100 B", path: "/100" },
  { name: "100 kB", path: "/100000" },
];

export const preview: Benchmark = {
  name: "preview",
  about: `GET of a Node server in a sandbox through its URL against straight to its port, by the same client in the sandbox's network namespace; ${connections} connections kept alive, then one`,
  async measure({ box }) {
    await using cleanup = new AsyncDisposableStack();
    const sandbox = box();
    cleanup.defer(async () => void (await sandbox.destroy()));
    await sandbox.writeFile("/workspace/server.mjs", server);
    const process = await sandbox.startProcess("node server.mjs");
    await process.waitForPort(3000, { path: "/100" });
    const url = new URL((await sandbox.exposePort(3000)).url);
    const namespace = await namespaceOf(sandbox);
    const through = { address: "127.0.0.1", port: Number(url.port), host: url.host };
    const straight = { address: "127.0.0.1", port: 3000, host: "localhost:3000" };
    const load = async (what: Omit<Load, "seconds">, ...front: string[]) => {
      const program = [globalThis.process.execPath, join(import.meta.dirname, "../http-load.ts")];
      const words = [...front, ...program, JSON.stringify({ ...what, seconds: secondsEach })];
      return JSON.parse(await call(words[0]!, ...words.slice(1))) as Loaded;
    };
    const viaUrl = (path: string, connections: number) => load({ ...through, path, connections });
    const viaPort = (path: string, connections: number) =>
      load({ ...straight, path, connections }, "nsenter", `--net=${namespace}`);

    const rates = answers.flatMap(({ name, path }): Contestant[] => [
      ...[
        { what: `straight to the port, ${name}`, ask: viaPort },
        { what: `preview, ${name}`, ask: viaUrl },
      ].map(({ what, ask }): Contestant => ({
        what,
        unit: "req/s",
        group: name,
        round: async () => (await ask(path, connections)).perSecond,
      })),
    ]);
    const waits = [
      { what: "straight to the port, 100 B, one connection", ask: viaPort },
      { what: "preview, 100 B, one connection", ask: viaUrl },
    ].map(({ what, ask }): Contestant => ({
      what,
      group: "latency",
      round: async () => (await ask("/100", 1)).latencyMs,
    }));
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

/** Of the host's names for network namespaces, the one of this sandbox. */
async function namespaceOf(sandbox: Sandbox): Promise<string> {
  const { stdout } = await sandbox.exec("readlink", ["/proc/self/ns/net"]);
  for (const name of await readdir("/run/netns")) {
    const path = `/run/netns/${name}`;
    if (stdout.trim() === `net:[${(await stat(path)).ino}]`) return path;
  }
  throw new Error("Cannot measure: the sandbox's network namespace has no name");
}

/** Answers as many bytes as the path says. */
const server = `
import http from "node:http";
http.createServer(({ url }, response) => {
  const body = Buffer.alloc(Number(url.slice(1)), "x");
  response.writeHead(200, { "content-type": "text/plain", "content-length": body.length }).end(body);
}).listen(3000, "127.0.0.1");
`;
