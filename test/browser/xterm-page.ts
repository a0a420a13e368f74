import { Terminal } from "@xterm/xterm";
import { SandboxAddon } from "@atoll/sandbox/xterm";

/** The page of xterm.test.ts: one terminal, whose WebSocket's URL the page's own server gives. */
const states: string[] = [];
const errors: string[] = [];
const terminal = new Terminal({ cols: 80, rows: 24, scrollback: 100_000, fontFamily: "monospace" });
const addon = new SandboxAddon({
  async getWebSocketUrl({ sandboxId, sessionId = "default" }) {
    const response = await fetch(`/terminal-url?${new URLSearchParams({ sandboxId, sessionId })}`);
    if (!response.ok) throw new Error(await response.text());
    return response.text();
  },
  onStateChange(state, error) {
    states.push(state);
    if (error) errors.push(error.message);
  },
});
terminal.loadAddon(addon);
terminal.open(document.querySelector<HTMLElement>("#screen")!);
terminal.focus();

/** All lines, those that were wrapped joined again. */
function text(): string {
  const { active } = terminal.buffer;
  let all = "";
  for (let at = 0; at < active.length; at++) {
    const line = active.getLine(at)!;
    all += (line.isWrapped || at === 0 ? "" : "\n") + line.translateToString(!active.getLine(at + 1)?.isWrapped);
  }
  return all.trimEnd();
}

/** The first cell that shows this. */
function cell(chars: string) {
  const { active } = terminal.buffer;
  for (let y = 0; y < active.length; y++) {
    for (let x = 0; x < terminal.cols; x++) {
      const found = active.getLine(y)?.getCell(x);
      if (found?.getChars() !== chars) continue;
      const rgb = found.isFgRGB();
      return { width: found.getWidth(), colour: found.getFgColor(), rgb, bold: found.isBold() !== 0 };
    }
  }
  return undefined;
}

function paste(pasted: string): void {
  const data = new DataTransfer();
  data.setData("text/plain", pasted);
  terminal.textarea!.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}

const tools = { terminal, addon, states, errors, text, cell, paste };
export type Tools = typeof tools;
Object.assign(globalThis, { tools });
