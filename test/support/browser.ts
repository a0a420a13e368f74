import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { until } from "./until.ts";

/** Debian's, which `./setup --tests` installs: the browsers that Playwright would fetch are not to be had everywhere. */
const executablePath = "/usr/bin/chromium";

const quiet = ["background-networking", "component-update", "gpu", "quic", "sync", "breakpad"];

/** A headless Chromium with a profile of its own. Fails at its end when a page of it threw an error that nobody caught. */
export class TestBrowser implements AsyncDisposable {
  readonly #browser: Browser;
  readonly #home: string;
  readonly #errors: Error[] = [];

  private constructor(browser: Browser, home: string) {
    this.#browser = browser;
    this.#home = home;
  }

  static async open(): Promise<TestBrowser> {
    // What a browser writes beside its profile (caches, locks, crash reports) goes with it.
    const home = await mkdtemp(join(tmpdir(), "atoll-browser-"));
    try {
      const browser = await chromium.launch({
        executablePath,
        chromiumSandbox: false, // it does not run as root
        args: ["--no-first-run", ...quiet.map((what) => `--disable-${what}`)],
        env: { PATH: process.env["PATH"], HOME: home, TMPDIR: home, LANG: "C.UTF-8" },
      });
      return new TestBrowser(browser, home);
    } catch (error) {
      await rm(home, { recursive: true, force: true });
      throw error;
    }
  }

  /** A new page of a visitor who has no cookies and no storage, as if it were in another browser. */
  async page(): Promise<Page> {
    const page = await this.#browser.newPage();
    page.on("pageerror", (error) => void this.#errors.push(error));
    return page;
  }

  /** The pids of all that runs for it. */
  pids(): number[] {
    const mark = `HOME=${this.#home}\0`;
    return readdirSync("/proc")
      .map(Number)
      .filter((pid) => pid > 0 && environmentOf(pid).includes(mark));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close();
    await until("the browser's processes are gone", () => this.pids().length === 0);
    await rm(this.#home, { recursive: true, force: true });
    assert.deepEqual(this.#errors, [], "no page threw an error that nobody caught");
  }
}

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1");
  } catch {
    return ""; // it has ended
  }
}
