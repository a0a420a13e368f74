import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Page } from "playwright-core";
import { getSandbox, type Sandbox } from "../../sdk/index.ts";
import { TestBrowser } from "../support/browser.ts";
import { TestDaemon } from "../support/daemon.ts";

// A real dev server in a sandbox, as a person sees it who works on a page there. It is installed inside, through the gateway.

let daemon: TestDaemon;
let browser: TestBrowser;
let box: Sandbox;

const project = "/workspace/page";
const files = {
  "package.json": JSON.stringify({ name: "page", private: true, type: "module" }),
  "index.html": `<!doctype html><title>page</title><link rel="stylesheet" href="/style.css">
    <h1></h1><input><script type="module" src="/main.js"></script>`,
  "style.css": "h1 { color: rgb(1, 2, 3) }",
  "message.js": `export const message = "first";`,
  "main.js": `import { message } from "./message.js";
    const show = (text) => (document.querySelector("h1").textContent = text);
    show(message);
    import.meta.hot?.accept("./message.js", (next) => show(next.message));`,
};

before(async () => {
  daemon = await TestDaemon.start({ env: { ATOLL_PREVIEW_LISTEN: "127.0.0.1:0" } });
  browser = await TestBrowser.open();
  box = getSandbox(daemon.connect(), "Vite-Box", { instance: "standard-2" });
  for (const [name, text] of Object.entries(files)) await box.writeFile(`${project}/${name}`, text);
  const installed = await box.exec("npm install --no-audit --no-fund --loglevel=error vite@8", { cwd: project });
  assert.equal(installed.exitCode, 0, installed.stderr);
});

after(async () => {
  await browser[Symbol.asyncDispose]();
  await daemon[Symbol.asyncDispose]();
});

/** What a person has typed, and when the page was loaded: neither is there any more after a reload. */
async function stateOf(page: Page): Promise<{ typed: string; loadedAt: number }> {
  return { typed: await page.inputValue("input"), loadedAt: await page.evaluate(() => performance.timeOrigin) };
}

const title = (page: Page, text: string) => page.locator("h1", { hasText: text }).waitFor();

test("a file that is changed is seen in the browser at once, and what was typed stays", async () => {
  const server = await box.startProcess("npx vite --port 5173 --strictPort", { cwd: project, restart: "wake" });
  await server.waitForPort(5173);
  const { url } = await box.exposePort(5173);
  const page = await browser.page();
  const connected = page.waitForEvent("console", (message) => message.text().includes("[vite] connected"));
  await page.goto(url);
  await title(page, "first");
  await connected;
  await page.fill("input", "kept");
  const before = await stateOf(page);

  await box.writeFile(`${project}/message.js`, `export const message = "second";`);
  await title(page, "second");
  await box.writeFile(`${project}/style.css`, "h1 { color: rgb(4, 5, 6) }");
  await page.waitForFunction(() => getComputedStyle(document.querySelector("h1")!).color === "rgb(4, 5, 6)");
  assert.deepEqual(await stateOf(page), before);
  assert.equal(before.typed, "kept");

  // a page that nobody has made for it is loaded again as a whole
  await box.writeFile(`${project}/index.html`, files["index.html"].replace("<input>", "<input value='new'>"));
  await page.locator("input[value=new]").waitFor();
});

test("a page that was open while its sandbox slept finds its server again", async () => {
  const { url } = await box.exposePort(5173);
  const page = await browser.page();
  await page.goto(url);
  await title(page, "second");
  await box.stop();
  await box.writeFile(`${project}/message.js`, `export const message = "third";`);
  await title(page, "third");
});

test("by path a page is seen whose build names its parts relative to it", async () => {
  const built = await box.exec("npx vite build --base ./ --logLevel error", { cwd: project });
  assert.equal(built.exitCode, 0, built.stderr);
  const server = await box.startProcess("npx vite preview --base / --port 4173 --strictPort", { cwd: project });
  await server.waitForPort(4173);
  const { pathUrl } = await box.exposePort(4173);
  const page = await browser.page();
  await page.goto(pathUrl!);
  await title(page, "third");
  assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector("h1")!).color), "rgb(4, 5, 6)");
});
