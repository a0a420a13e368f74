import { fstatSync } from "node:fs";
import { Readable } from "node:stream";
import { parseDurationMs } from "../protocol/options.ts";
import { getSandbox } from "../sdk/sandbox.ts";
import { pairs, UsageError } from "./args.ts";
import { connectionOf } from "./daemon.ts";
import { printJson, write } from "./output.ts";
import { showTerminal } from "./show-terminal.ts";
import type { Call, Run } from "./table.ts";

/** What a shell makes of a program that a signal ended. */
const exitCodeOfSignal = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

export const run: Run<"exec"> = async (call) => {
  const { values, rest } = call;
  const [id = ""] = call.arguments;
  const [file = "", ...args] = rest;
  const sandbox = getSandbox(connectionOf(values), id);
  if (values.tty) {
    refuseWithTerminal(values);
    const { cwd, user, env } = optionsOf(call);
    return showTerminal(sandbox, { command: rest, cwd, user, env });
  }
  const { signal, stoppedBy } = stopOnSignals();
  const options = { ...optionsOf(call), ...inputOf(call), signal };
  if (values.json) {
    const result = await sandbox.exec(file, args, options);
    printJson(result);
    return stoppedBy() ?? result.exitCode;
  }
  const { exitCode } = await sandbox.exec(file, args, {
    ...options,
    encoding: "buffer",
    maxBuffer: 0,
    onOutput: (stream, data) => write(stream === "stdout" ? process.stdout : process.stderr, data),
  });
  return stoppedBy() ?? exitCode;
};

/** What a terminal cannot keep is not passed over. */
function refuseWithTerminal({ timeout, "no-stdin": noStdin, json }: Call<"exec">["values"]): void {
  const option = timeout !== undefined ? "--timeout" : noStdin ? "--no-stdin" : json ? "--json" : undefined;
  if (option === undefined) return;
  const why = {
    "--timeout": 'a terminal has no time limit; put "timeout 30" before the command',
    "--no-stdin": "what is typed is a terminal's input",
    "--json": "a terminal shows what is printed, as it comes",
  };
  throw new UsageError(`Cannot use ${option} with --tty: ${why[option]}`);
}

function optionsOf({ values }: Call<"exec">) {
  const { cwd, user, timeout } = values;
  const timeoutMs =
    timeout === undefined ? undefined : parseDurationMs(/^\d+$/.test(timeout) ? Number(timeout) : timeout);
  if (timeout !== undefined && !timeoutMs) {
    throw new UsageError(
      `Cannot use --timeout ${JSON.stringify(timeout)}: a time is "30s", "5m", "1h" or a number of seconds`,
    );
  }
  return {
    cwd,
    user,
    timeout: timeoutMs,
    env: pairs("env", values.env),
  };
}

/** Takes standard input: nobody else can read it then. */
function inputOf({ values }: Call<"exec">) {
  return !values["no-stdin"] && hasInput() && { stdin: Readable.toWeb(process.stdin) as ReadableStream<Uint8Array> };
}

/** A job without a terminal usually has /dev/null: an empty input, which costs no second request. */
function hasInput(): boolean {
  try {
    return process.stdin.isTTY || !fstatSync(0).isCharacterDevice();
  } catch {
    return false; // standard input is closed
  }
}

/** The first signal stops the command and waits for its end, the second leaves at once. */
function stopOnSignals(): { signal: AbortSignal; stoppedBy: () => number | undefined } {
  const controller = new AbortController();
  let code: number | undefined;
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      if (code !== undefined) process.exit(code);
      code = exitCodeOfSignal[name];
      controller.abort(new Error(`atoll got ${name}`));
    });
  }
  return { signal: controller.signal, stoppedBy: () => code };
}
