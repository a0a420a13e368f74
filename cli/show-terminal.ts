import { spawnSync } from "node:child_process";
import type { Sandbox } from "../sdk/sandbox.ts";
import type { Terminal, TerminalOptions } from "../sdk/terminal.ts";
import { detachKey } from "./detach-key.ts";

/** The end of what a program reads, for a shell whose input is no terminal. */
const endOfInput = "\x04";

/** Shows a terminal of a sandbox in ours until its program ends or the user leaves it. Gives the exit code. */
export async function showTerminal(sandbox: Sandbox, options: TerminalOptions): Promise<number> {
  const { stdin, stdout } = process;
  const size = sizeOfOurs();
  const terminal = await sandbox.createTerminal({ ...options, ...size });
  const resize = () => {
    const now = sizeOfOurs();
    if (now) terminal.resize(now.cols, now.rows);
  };
  resize(); // one that runs already has another's
  stdout.on("resize", resize);
  const left = typeInto(terminal);
  // Whoever closes the window of a shell that has no name will not come back to it.
  for (const name of ["SIGHUP", "SIGTERM"] as const) process.once(name, () => void leave(terminal, options));
  if (stdin.isTTY) passEverything();
  try {
    for await (const { data } of terminal.output) {
      if (!stdout.write(data)) await new Promise((resolve) => stdout.once("drain", resolve));
    }
    if (left.detached) return tellHowToReturn(sandbox, terminal);
    return (await terminal.exited).code;
  } finally {
    if (stdin.isTTY) stdin.setRawMode(false);
    stdout.off("resize", resize);
    stdin.pause();
  }
}

/**
 * Every key goes in and every byte comes out as it is. Node's raw mode leaves a line feed a new line, which draws the screens
 * of programs askew that mean one row down by it. What it was before comes back with the end of raw mode.
 */
function passEverything(): void {
  process.stdin.setRawMode(true);
  spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
}

/** Undefined where there is none: a file, a pipe, or a terminal that nobody has given a size. */
function sizeOfOurs(): { cols: number; rows: number } | undefined {
  const { isTTY, columns: cols, rows } = process.stdout;
  return isTTY && cols > 0 && rows > 0 ? { cols, rows } : undefined;
}

/** Everything that is typed goes in, but the keys that leave. */
function typeInto(terminal: Terminal): { detached: boolean } {
  const state = { detached: false };
  const keys = detachKey();
  process.stdin.on("data", (data: Buffer) => {
    const { typed, detach } = process.stdin.isTTY ? keys(data) : { typed: data, detach: false };
    if (typed.length > 0) terminal.write(typed);
    if (!detach) return;
    state.detached = true;
    terminal.detach();
  });
  if (!process.stdin.isTTY) process.stdin.on("end", () => terminal.write(endOfInput));
  return state;
}

async function leave(terminal: Terminal, options: TerminalOptions): Promise<void> {
  if (options.id === undefined) await terminal.close().catch(() => {}); // we go anyway
  terminal.detach();
}

function tellHowToReturn(sandbox: Sandbox, terminal: Terminal): number {
  process.stderr.write(`\r\nIt goes on. Come back with: atoll shell ${sandbox.id} --terminal ${terminal.id}\r\n`);
  return 0;
}
