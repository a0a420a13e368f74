import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { TestBrowser } from "../support/browser.ts";

const server = createServer((request, response) => {
  const { host, cookie = "none" } = request.headers;
  response.setHeader("content-type", "text/html");
  response.setHeader("set-cookie", "visited=yes");
  response.end(`<title>${host}</title><p>before</p><i>${cookie}</i>
    <script type="module">document.querySelector("p").textContent = await Promise.resolve("after")</script>`);
});
const scratch = mkdtempSync(join(tmpdir(), "atoll-browsers-"));
let url: string;

before(async () => {
  process.env["TMPDIR"] = scratch;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://some.localhost:${(server.address() as AddressInfo).port}`;
});

after(() => {
  server.close();
  rmSync(scratch, { recursive: true });
});

test("pages run, each for a visitor of its own, and nothing of the browser is left", async () => {
  const browser = await TestBrowser.open();
  {
    await using stack = new AsyncDisposableStack();
    stack.use(browser);
    const [page, other] = [await browser.page(), await browser.page()];
    await page.goto(url);
    await page.getByText("after").waitFor();
    assert.equal(await page.title(), new URL(url).host);
    await page.reload();
    assert.equal(await page.locator("i").textContent(), "visited=yes");
    await other.goto(url);
    assert.equal(await other.locator("i").textContent(), "none");
    assert(browser.pids().length > 1 && readdirSync(scratch).length > 1);
  }
  assert.deepEqual(browser.pids(), []);
  assert.deepEqual(readdirSync(scratch), []);
});

test("an error in a page that nobody caught is one of the test", async () => {
  const browser = await TestBrowser.open();
  const page = await browser.page();
  const thrown = page.waitForEvent("pageerror");
  await page.setContent(`<script>setTimeout(() => { throw new Error("whose is this?") })</script>`);
  await thrown;
  await assert.rejects(browser[Symbol.asyncDispose](), /whose is this\?/);
  assert.deepEqual(browser.pids(), []);
});
