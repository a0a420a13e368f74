import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { build } from "esbuild";
import type { Page } from "playwright-core";
import { connect, getSandbox, type Sandbox, SandboxError } from "../../sdk/index.ts";
import { TestBrowser } from "../support/browser.ts";
import { TestDaemon } from "../support/daemon.ts";
import { Relay } from "../support/relay.ts";
import { until } from "../support/until.ts";
import type { Tools } from "./xterm-page.ts";

declare const tools: Tools;

const house = join(import.meta.dirname, "../..");

let daemon: TestDaemon;
let relay: Relay;
let browser: TestBrowser;
let box: Sandbox;

before(async () => {
  daemon = await TestDaemon.start();
  relay = await Relay.to(daemon.url);
  browser = await TestBrowser.open();
  box = getSandbox(daemon.connect(), "box");
  await box.exec("true");
});

after(async () => {
  await browser[Symbol.asyncDispose]();
  relay[Symbol.dispose]();
  await daemon[Symbol.asyncDispose]();
});

/** The server of an app: its page, and URLs of terminals for it. It has the token, the page has not. */
async function serveApp(xterm: string): Promise<Server> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, "xterm-page.ts")],
    bundle: true,
    write: false,
    format: "esm",
    alias: { "@xterm/xterm": xterm, "@atoll/sandbox/xterm": join(house, "sdk/xterm.ts") },
  });
  const css = await readFile(join(house, `node_modules/${xterm}/css/xterm.css`), "utf8");
  const html = `<!doctype html><meta charset="utf-8"><style>${css}</style><div id="screen"></div>
    <script type="module">${outputFiles[0]!.text.replaceAll("</script", "<\\/script")}</script>`;
  const connection = connect({ url: relay.url, token: daemon.token });
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "", "http://app");
    if (pathname === "/") return void response.setHeader("content-type", "text/html").end(html);
    if (pathname !== "/terminal-url") return void response.writeHead(204).end();
    try {
      const [sandbox = "", sessionId = ""] = [searchParams.get("sandboxId"), searchParams.get("sessionId")] as string[];
      const origin = `http://${request.headers.host}`;
      response.end(await getSandbox(connection, sandbox).createTerminalUrl({ sessionId, origin }));
    } catch (error) {
      response.writeHead(503).end(String(error));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

for (const [version, xterm] of [
  [6, "@xterm/xterm"],
  [5, "xterm5"],
] as const) {
  suite(`xterm ${version}`, () => {
    let app: Server;

    before(async () => {
      app = await serveApp(xterm);
    });

    after(() => {
      app.close();
      app.closeAllConnections();
    });

    /** A page that shows the terminal of this session. */
    async function open(name: string): Promise<Page> {
      const id = `${name}-${version}`;
      await box.createSession({ id }).catch((error: unknown) => {
        if (!SandboxError.is(error, "SESSION_ALREADY_EXISTS")) throw error;
      });
      const page = await browser.page();
      await page.goto(`http://127.0.0.1:${(app.address() as AddressInfo).port}/`);
      await page.evaluate((sessionId) => tools.addon.connect({ sandboxId: "box", sessionId }), id);
      await until("it is connected", async () => {
        const { state, errors } = await page.evaluate(() => ({ state: tools.addon.state, errors: tools.errors }));
        if (state === "connected") return true;
        throw new Error(`it is ${state}: ${errors.join()}`);
      });
      return page;
    }

    const textOf = (page: Page) => page.evaluate(() => tools.text());
    const sees = async (page: Page, what: string | RegExp) =>
      until(`the page shows ${String(what)}`, async () => {
        const text = await textOf(page);
        if (typeof what === "string" ? text.includes(what) : what.test(text)) return true;
        throw new Error(text.slice(-1_000));
      });
    const run = async (page: Page, command: string) => {
      await page.keyboard.type(command);
      await page.keyboard.press("Enter");
    };
    const numbers = (text: string) => [...text.matchAll(/^n(\d+)$/gm)].map(([, number]) => Number(number));
    const ascending = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

    test("a prompt, what is typed, colours, characters of any width", async () => {
      const page = await open("shown");
      await sees(page, /root@box:\/workspace# ?$/);
      await run(page, "printf '\\033[1;31m\\121\\033[0m \\033[38;2;1;2;3m\\132\\033[0m %s\\n' 漢字-ü-é-😀");
      await sees(page, "Q Z 漢字-ü-é-😀");
      const cells = await page.evaluate(() => ["Q", "Z", "漢", "ü"].map((chars) => tools.cell(chars)));
      assert.deepEqual(cells, [
        { width: 1, colour: 1, rgb: false, bold: true },
        { width: 1, colour: 0x010203, rgb: true, bold: false },
        { width: 2, colour: -1, rgb: false, bold: false },
        { width: 1, colour: -1, rgb: false, bold: false },
      ]);
      await page.keyboard.type("echo wrong");
      for (let i = 0; i < 5; i++) await page.keyboard.press("Backspace");
      await run(page, "right | tr a-z A-Z");
      await sees(page, "\nRIGHT\n");
      await page.keyboard.press("ArrowUp");
      await page.keyboard.press("Enter");
      await sees(page, /\nRIGHT\n[^]*\nRIGHT\n/);
    });

    test("its size is the terminal's, from the start and when it changes", async () => {
      const page = await open("sized");
      await run(page, "stty size");
      await sees(page, "\n24 80\n");
      await page.evaluate(() => tools.terminal.resize(101, 31));
      await run(page, "clear; stty size");
      await sees(page, "31 101\n");
    });

    test("a paste of 100 kB arrives whole", async () => {
      const text = Array.from({ length: 1_500 }, (_, at) => `line ${at} ${"é漢x".repeat(10)}`).join("\n") + "\n";
      const size = Buffer.byteLength(text);
      assert(size > 100_000);
      const page = await open("pasted");
      await run(page, `stty -echo; echo re""ady; head -c ${size} | sha256sum; stty echo`);
      await sees(page, /\nready/);
      await page.evaluate((pasted) => tools.paste(pasted), text);
      await sees(page, createHash("sha256").update(text).digest("hex"));
    });

    test("a cut line is made again: nothing on the screen is doubled, nothing is lost", async () => {
      const page = await open("cut");
      await run(page, "clear; for i in $(seq 1 500); do echo n$i; sleep 0.01; done; echo do''ne");
      for (let cuts = 0; cuts < 4; cuts++) {
        const count = numbers(await textOf(page)).length;
        await until("it goes on", async () => numbers(await textOf(page)).length > count);
        relay.cut();
      }
      await sees(page, "\ndone\n");
      assert.deepEqual(numbers(await textOf(page)), ascending(1, 500));
      const states = await page.evaluate(() => tools.states);
      assert(states.length > 4 && states.at(-1) === "connected", states.join());
    });

    test("while there is no line it tries less and less; what is typed meanwhile arrives", async () => {
      const page = await open("broken");
      await sees(page, /# ?$/);
      relay.break();
      await until("the loss is told", () => page.evaluate(() => tools.states.at(-1) === "connecting"));
      const { made } = relay;
      const began = performance.now();
      await until("it has tried a few times", () => page.evaluate(() => tools.errors.length >= 5));
      // between them four pauses of at least 50, 100, 200, 400 ms, however slow the machine is
      assert(performance.now() - began >= 700);
      assert(relay.made > made);
      await run(page, "echo da''rk");
      relay.mend();
      await sees(page, "\ndark\n");
    });

    test("where more was printed than is kept, the screen is drawn anew", async () => {
      const page = await open("rolled");
      await run(page, "clear; echo wai''ting; read line; seq -f n%.0f 1 200000; echo do''ne");
      await sees(page, "waiting");
      relay.break();
      await until("the loss is told", () => page.evaluate(() => tools.states.at(-1) === "connecting"));
      const there = await box.createTerminal({ id: `rolled-${version}` });
      there.write("\r");
      await until("it is printed", async () => {
        const { terminals } = (await (
          await fetch(`${daemon.url}/v1/sandboxes/box/terminals`, {
            headers: { authorization: `Bearer ${daemon.token}` },
          })
        ).json()) as { terminals: { id: string; offset: number }[] };
        return terminals.some(({ id, offset }) => id === there.id && offset > 1_500_000);
      });
      there.detach();
      relay.mend();
      await sees(page, "\ndone\n");
      const shown = numbers(await textOf(page));
      assert.deepEqual(shown, ascending(shown[0]!, 200_000));
      assert(shown.length > 30_000 && shown.length < 100_000, `${shown.length} lines`);
    });

    test("a flood is drawn as fast as the page can, and can be stopped", async () => {
      const page = await open("flooded");
      await run(page, "yes");
      await sees(page, /(\ny){1000}/);
      await page.keyboard.press("Control+c");
      await run(page, "clear; echo ca''lm");
      await sees(page, "calm\n");
      assert.deepEqual(await page.evaluate(() => tools.states), ["connecting", "connected"]);
    });

    test("two browsers on one terminal show the same, whoever types", async () => {
      const first = await open("shared");
      const second = await open("shared");
      await run(first, "clear; echo fr''om first");
      await sees(second, "from first\n");
      await run(second, "echo fr''om second");
      await sees(first, "\nfrom second\n");
      await until("both show the same", async () => (await textOf(first)) === (await textOf(second)));
    });

    test("what a program asked the screen is answered once, and not again by who sees it replayed", async () => {
      const first = await open("asked");
      const file = `/tmp/answers-${version}`;
      await run(first, `stty raw -echo; printf 'A\\033[c\\033]10;?\\007\\033[6n'; exec cat >${file}`);
      const answers = async () => (await box.exec(`cat -v ${file}`)).stdout;
      await until("it is answered", async () => /\^\[\[\?1;2c.*R$/.test(await answers()));
      const before = await answers();
      const second = await open("asked");
      await sees(second, /A/);
      await second.keyboard.type("x");
      await until("the key arrived", async () => (await answers()).includes("x"));
      assert.equal(await answers(), `${before}x`);
    });

    test("the end of the shell is the end; what is wrong is told; another terminal can be shown", async () => {
      const page = await open("ended");
      await run(page, "exit");
      await until("it is disconnected", () => page.evaluate(() => tools.addon.state === "disconnected"));
      await page.evaluate(() => tools.addon.connect({ sandboxId: "box", sessionId: "a b" }));
      await until("it is told", () => page.evaluate(() => tools.errors.length > 0));
      await page.evaluate(() => tools.addon.connect({ sandboxId: "box", sessionId: "default" }));
      await sees(page, /^root@box:\/workspace# ?$/);
      await page.evaluate(() => tools.addon.disconnect());
      assert.equal(await page.evaluate(() => tools.addon.state), "disconnected");
    });
  });
}
