import type { Sandbox } from "../../sdk/index.ts";
import { type Benchmark, interleave } from "../benchmark.ts";
import { behindWebSocket, inScript, type Typed } from "../peers/script.ts";
import { pause } from "../process.ts";

const rounds = 20;
const keysPerRound = 20;
/** Somebody who types fast; the machine has time to fall asleep between two keys, as it has then. */
const paceMs = 25;

const bytesOfFlood = 64e6;
const floodRounds = 5;
/** Waits for a key, then prints that many bytes in lines. */
const flood = `read -r line; yes 0123456789abcdefghijklmnopqrstuvwxyz0123456789 | head -c ${bytesOfFlood}; echo; echo END`;
const shell = "bash --norc";

export const terminal: Benchmark = {
  name: "terminal",
  about:
    "a key that is typed into bash, to its echo; and what a terminal prints at most, from the first byte to the last",
  async measure({ box }) {
    await using cleanup = new AsyncDisposableStack();
    const sandbox = box();
    cleanup.defer(async () => void (await sandbox.destroy()));
    const ours = cleanup.use(await inSandbox(sandbox, shell));
    const bare = cleanup.use(inScript(shell));
    const web = cleanup.use(await behindWebSocket(shell));
    const echo = await interleave(
      [
        { what: "atoll, key to echo", budget: "terminal echo", group: "echo", round: () => echoes(ours) },
        { what: "script behind a WebSocket, on the host", group: "echo", round: () => echoes(web) },
        { what: "script alone, on the host", group: "echo", round: () => echoes(bare) },
      ],
      rounds,
    );
    const speed = await interleave(
      [
        { what: "atoll, output", unit: "MB/s", group: "output", round: () => outflow(() => inSandbox(sandbox, flood)) },
        {
          what: "script behind a WebSocket, on the host",
          unit: "MB/s",
          group: "output",
          round: () => outflow(() => behindWebSocket(flood)),
        },
      ],
      floodRounds,
    );
    return [...echo, ...speed];
  },
};

async function inSandbox(sandbox: Sandbox, command: string): Promise<Typed> {
  const opened = await sandbox.createTerminal({ command });
  return {
    write: opened.write,
    onOutput(listener) {
      void (async () => {
        for await (const { data } of opened.output) listener(data);
      })();
    },
    async [Symbol.asyncDispose]() {
      opened.detach();
      await opened.close();
    },
  };
}

const prompts = new WeakMap<Typed, { hear: () => void }>();

/** Milliseconds from each key to the next output. The line is cleared outside the time. */
async function echoes(typed: Typed): Promise<number[]> {
  let listening = prompts.get(typed);
  if (!listening) {
    const made = { hear: () => {} };
    typed.onOutput(() => made.hear());
    prompts.set(typed, (listening = made));
    await pause(1_000); // the prompt has come
  }
  const samples: number[] = [];
  const key = async (text: string) => {
    const heard = new Promise<void>((resolve) => (listening.hear = resolve));
    const began = performance.now();
    typed.write(text);
    await heard;
    return performance.now() - began;
  };
  for (let at = 0; at < keysPerRound; at++) {
    samples.push(await key("x"));
    await pause(paceMs);
  }
  await key("\x15");
  await pause(paceMs);
  return samples;
}

async function outflow(open: () => Promise<Typed>): Promise<number> {
  await using typed = await open();
  let bytes = 0;
  let began = 0;
  let last = "";
  const done = new Promise<void>((resolve) => {
    typed.onOutput((data) => {
      began ||= performance.now();
      bytes += data.length;
      last = (last + Buffer.from(data.subarray(-16)).toString("latin1")).slice(-16);
      if (last.includes("END")) resolve();
    });
  });
  typed.write("\r");
  await done;
  return bytes / 1e6 / ((performance.now() - began) / 1_000);
}
