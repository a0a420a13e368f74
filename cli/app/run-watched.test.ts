import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { App, Client } from "../../test/support/app.ts";
import { until } from "../../test/support/until.ts";

const program = resolve(import.meta.dirname, "../../test/fixtures/programs/app.ts");

/** Nobody asks it for anything. */
const daemon = { url: "http://127.0.0.1:9", token: "of-no-daemon" };

let workDir = "";
before(async () => (workDir = await mkdtemp(join(tmpdir(), "atoll-app-"))));
after(() => rm(workDir, { recursive: true, force: true }));

/** Writes as many editors do: beside it, and into its place. */
async function replace(path: string, text: string): Promise<void> {
  await writeFile(`${path}~`, text);
  await rename(`${path}~`, path);
}

test("--watch starts an app again when a file of it changes; whoever comes meanwhile waits", async () => {
  const dir = await mkdtemp(join(workDir, "watch-"));
  const main = join(dir, "app.ts");
  const part = join(dir, "part/word.ts");
  await mkdir(join(dir, "part"));
  await mkdir(join(dir, "node_modules/tool"), { recursive: true });
  const tool = join(dir, "node_modules/tool/index.js");
  await writeFile(tool, "exports.tool = 1;");
  await writeFile(join(dir, "unused.ts"), "");
  await writeFile(part, 'export const word: string = "one";');
  await writeFile(
    main,
    `import { word } from "./part/word"; import "tool";
     const id = Math.random();
     export default { async fetch(request: Request) {
       if (new URL(request.url).pathname === "/slow") { console.error("slow begins"); await new Promise((r) => setTimeout(r, 300)); }
       return new Response(word + " " + id);
     } };`,
  );
  await using watched = await App.start(daemon, main, { options: ["--watch"] });
  const [, first] = (await watched.text("/")).split(" ");
  // of no concern
  await writeFile(join(dir, "unused.ts"), "// changed");
  await writeFile(tool, "exports.tool = 2;");

  // a request that is under way is answered by the app that took it, one that comes meanwhile by the next
  const slow = watched.text("/slow");
  await until("it has begun", () => watched.stderr.includes("slow begins"));
  await replace(part, 'export const word = "two";');
  await until("it is seen", () => /word\.ts has changed/.test(watched.stderr));
  assert.match(await watched.text("/"), /^two /);
  assert.equal(await slow, `one ${first}`);
  assert.equal(watched.stderr.match(/has changed/g)?.length, 1);

  // a mistake is told, and mended by the next change, also by one of a file that was missing
  await writeFile(part, "export const word = = 3;");
  await until("it is told", () => /SyntaxError[^]*word\.ts:1:21[^]*ended with exit code 1/.test(watched.stderr));
  assert.equal((await watched.fetch("/")).status, 503);
  await replace(part, 'import "./more.ts"; export const word = "three";');
  await until("it is told", () => /Cannot find module[^]*more\.ts[^]*ended with exit code 1/.test(watched.stderr));
  await writeFile(join(dir, "part/more.ts"), "");
  await until("it serves again", async () => (await watched.text("/")).startsWith("three "));
  assert.equal(watched.stdout.trim().split("\n").length, 1);

  using client = new Client(`${watched.url}/`);
  await until("it is refused", () => client.refused);
  watched.kill("SIGTERM");
  assert.deepEqual(await watched.ended(), { code: 0, signal: null });
});

test("--watch with WebSockets, a program that is no app, a port that is taken, and a watcher that is killed", async () => {
  const main = join(workDir, "watched.ts");
  await writeFile(main, "console.log('ran', process.argv[2])");
  await using plain = new App(daemon, main, { options: ["--watch"] });
  await until("it has ended", () => /ended with exit code 0: waiting/.test(plain.stderr));
  await replace(main, "console.log('again'); setInterval(() => {}, 1000)");
  await until("it ran again", () => /^ran undefined\nagain\n$/.test(plain.stdout));
  plain.kill("SIGINT");
  assert.deepEqual(await plain.ended(), { code: 130, signal: null });

  await using taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as { port: number };
  await using refused = new App(daemon, program, { options: ["--watch", "--port", String(port)] });
  assert.equal((await refused.ended()).code, 5);
  assert.match(refused.stderr, /the port is taken/);

  const app = await App.start(daemon, program, { options: ["--watch"] });
  using client = await new Client(`${app.url}/echo`).opened();
  client.socket.send("through the watcher");
  await until("it came back", () => client.messages.length === 2);
  app.kill("SIGKILL");
  await until("the app has ended too", () => client.closed);
  await app.ended();
});

test("--watch ends by a second signal also an app that hears none", async () => {
  const main = join(workDir, "busy.ts");
  await writeFile(main, `export default { fetch() { console.error("begins"); for (;;); } };`);
  await using busy = await App.start(daemon, main, { options: ["--watch"] });
  const cutOff = busy.fetch("/").catch(() => "cut off");
  await until("it is busy", () => busy.stderr.includes("begins"));
  busy.kill("SIGINT");
  busy.kill("SIGTERM");
  assert.deepEqual(await busy.ended(), { code: 137, signal: null });
  assert.equal(await cutOff, "cut off");
});
