import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import { App } from "../support/app.ts";
import { TestBrowser } from "../support/browser.ts";
import { TestDaemon } from "../support/daemon.ts";
import { until } from "../support/until.ts";
import type { Tools } from "./xterm-page.ts";

declare const tools: Tools;

const house = join(import.meta.dirname, "../..");

let daemon: TestDaemon;
let browser: TestBrowser;
let dir = "";

before(async () => {
  daemon = await TestDaemon.start();
  browser = await TestBrowser.open();
  dir = await mkdtemp(join(tmpdir(), "atoll-page-"));
});

after(async () => {
  await browser[Symbol.asyncDispose]();
  await daemon[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

/** Serves the page of xterm.test.ts, and passes its terminal on. */
const program = `
  import { readFileSync } from "node:fs";
  import { getSandbox, Sandbox } from "@atoll/sandbox";
  export { Sandbox };
  const page = readFileSync(new URL("page.html", import.meta.url));
  export default {
    async fetch(request: Request, env: any) {
      const { host, pathname } = new URL(request.url);
      switch (pathname) {
        case "/": return new Response(page, { headers: { "content-type": "text/html" } });
        case "/terminal-url": return new Response("ws://" + host + "/terminal");
        case "/terminal": return getSandbox(env.Sandbox, "box").terminal(request);
      }
      return new Response(null, { status: 204 });
    },
  };`;

async function writeApp(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, "xterm-page.ts")],
    ...{ bundle: true, write: false, format: "esm" },
    alias: { "@atoll/sandbox/xterm": join(house, "sdk/xterm.ts") },
  });
  const css = await readFile(join(house, "node_modules/@xterm/xterm/css/xterm.css"), "utf8");
  const script = outputFiles?.[0]?.text.replaceAll("</script", "<\\/script") ?? "";
  await writeFile(
    join(dir, "page.html"),
    `<!doctype html><meta charset="utf-8"><style>${css}</style><div id="screen"></div><script type="module">${script}</script>`,
  );
  await writeFile(join(dir, "app.ts"), program);
  return join(dir, "app.ts");
}

test("a page's terminal is passed on by the app that serves the page, and goes on when the app was started again", async () => {
  const file = await writeApp();
  await using first = await App.start(daemon, file);
  const page = await browser.page();
  await page.goto(first.url);
  await page.evaluate(() => tools.addon.connect({ sandboxId: "box" }));
  const state = () => page.evaluate(() => tools.addon.state);
  const sees = (what: string) =>
    until(`the page shows ${what}`, async () => (await page.evaluate(() => tools.text())).includes(what));
  await until("it is connected", async () => (await state()) === "connected");
  await page.keyboard.type("echo $((6*7))-before\n");
  await sees("\n42-before");

  first.kill("SIGKILL");
  await until("the page knows", async () => (await state()) === "connecting");
  await first.ended();
  await using second = await App.start(daemon, file, { options: ["--port", new URL(first.url).port] });
  await until("it is connected again", async () => (await state()) === "connected");
  await page.keyboard.type("echo $((6*7))-after\n");
  await sees("\n42-after");
  const text = await page.evaluate(() => tools.text());
  assert.equal(text.match(/\n42-before/g)?.length, 1, text);
  assert.equal(second.stderr, "");
});
