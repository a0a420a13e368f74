import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
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

test("a port that is taken is told with the remedy", async () => {
  await using taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as { port: number };
  await using second = new App(daemon, program, { options: ["--port", String(port)] });
  const { code } = await second.ended();
  assert.equal(code, 5);
  const { error } = JSON.parse(second.stderr.split("\n").find((line) => line.startsWith("{")) ?? "{}");
  assert.match(error.message, new RegExp(`Cannot serve on 127\\.0\\.0\\.1:${port}: the port is taken`));
  assert.match(error.suggestion, /--port/);
  for (const options of [
    ["--port", "many"],
    ["--port", "70000"],
    ["--ip", "nowhere"],
  ]) {
    await using wrong = new App(daemon, program, { options });
    assert.equal((await wrong.ended()).code, 2, options.join(" "));
  }
});

test("a signal lets requests end, closes WebSockets, and a second one waits for nothing", async () => {
  await using patient = await App.start(daemon, program);
  using client = await new Client(`${patient.url}/echo`).opened();
  const slow = patient.text("/slow");
  await until("it has begun", () => patient.stderr.includes("slow begins"));
  patient.kill("SIGTERM");
  assert.equal(await slow, "slowly");
  assert.deepEqual(await patient.ended(), { code: 0, signal: null });
  assert.equal(client.closed?.code, 1001);

  await using stuck = await App.start(daemon, program);
  const never = stuck.text("/stuck").catch(() => "cut off");
  await until("it has begun", () => stuck.stderr.includes("stuck begins"));
  stuck.kill("SIGINT");
  await until("it accepts nothing more", () =>
    stuck.fetch("/env").then(
      () => false,
      () => true,
    ),
  );
  stuck.kill("SIGINT");
  assert.deepEqual(await stuck.ended(), { code: 130, signal: null });
  assert.equal(await never, "cut off");
});

test("a program without an app in it is run as ever: main, its exit code, evaluated once", async () => {
  const rows: [string, string, string, number][] = [
    ["plain.ts", "console.log(import.meta.main, process.argv.length); export class Sandbox {}", "true 2\n", 0],
    ["plain.cjs", "console.log(require.main === module); exports.x = 1; process.exitCode = 3", "true\n", 3],
    ["object.mjs", "console.log('once'); export default { fetch: 'no function' }", "once\n", 0],
    ["throws.mjs", "console.log('once'); throw new Error('top'); ", "once\n", 1],
    ["never.mjs", "console.log('once'); await new Promise(() => {})", "once\n", 13],
  ];
  for (const [name, program, stdout, code] of rows) {
    await writeFile(join(workDir, name), program);
    await using plain = new App(daemon, join(workDir, name), {});
    assert.equal((await plain.ended()).code, code, name);
    assert.equal(plain.stdout, stdout, name);
    assert.equal(plain.stderr.match(/Error: top/g)?.length ?? 0, name === "throws.mjs" ? 1 : 0);
  }
});

test("other forms of a module are served: CommonJS, an instance of a class, a module that takes its time", async () => {
  const rows: [string, string][] = [
    ["common.cjs", "module.exports = { prefix: 'as ', fetch() { return new Response(this.prefix + 'served') } }"],
    ["compiled.cjs", "exports.__esModule = true; exports.default = { fetch: async () => new Response('as served') }"],
    [
      "class.ts",
      "class App { #it = 'as served'; fetch() { return new Response(this.#it) } }; export default new App()",
    ],
    [
      "late.mjs",
      "const it = await new Promise((r) => setTimeout(r, 50, 'as served')); export default { fetch: () => new Response(it) }",
    ],
    ["busy.mjs", "setInterval(() => {}, 1000); export default { fetch: () => new Response('as served') }"],
  ];
  for (const [name, program] of rows) {
    await writeFile(join(workDir, name), program);
    await using other = await App.start(daemon, join(workDir, name));
    assert.equal(await other.text("/"), "as served", name);
  }
});

test("an app goes on when whoever heard what it tells has gone, which it does not try to tell", async () => {
  const main = join(workDir, "heard.ts");
  await writeFile(
    main,
    `let errors = 0;
     process.on("uncaughtException", () => errors++);
     export default { fetch(request: Request) {
       if (request.url.endsWith("/throw")) throw new Error("on purpose");
       return new Response(String(errors));
     } };`,
  );
  await using unheard = await App.start(daemon, main);
  unheard.hearNoMore();
  for (let turn = 0; turn < 5; turn++) assert.equal((await unheard.fetch("/throw")).status, 500);
  assert.equal(await unheard.text("/"), "0");
});
