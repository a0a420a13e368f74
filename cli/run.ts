import { existsSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { SandboxError } from "../protocol/errors.ts";
import { type AppOptions, appEnvironment } from "./app/options.ts";
import { UsageError } from "./args.ts";
import { configOf, findDaemon, isElsewhere } from "./daemon.ts";
import { startDetached } from "./detach.ts";
import { note } from "./output.ts";
import type { Call, Run } from "./table.ts";

/** Becomes the program, unless it is watched: it has our standard streams, gets our signals, and its exit code is ours, because it is us. */
export const run: Run<"run"> = async (call) => {
  const [name = ""] = call.arguments;
  const program = resolve(name);
  if (!existsSync(program)) {
    throw new SandboxError("FILE_NOT_FOUND", `Cannot run "${name}": there is no such file`);
  }
  const options = appOptionsOf(call);
  const env = { ...process.env, ...(await addressOf(call)), ...appEnvironment(options) };
  const load = new URL("./load.ts", import.meta.url).href;
  const words = ["--enable-source-maps", "--import", load, program, ...call.rest];
  if (options.isWatched) {
    const { runWatched } = await import("./app/run-watched.ts");
    return runWatched(words, env, options);
  }
  // Node 24 marks it experimental; a child in between would have to guess which signals the terminal sent to both.
  process.execve!(process.execPath, [process.execPath, ...words], env);
  throw new Error(`Cannot run "${name}": Node came back from execve`);
};

function appOptionsOf({ values }: Call<"run">): AppOptions {
  const { port = "8787", ip = "127.0.0.1", json = false, watch = false } = values;
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) {
    throw new UsageError(`Cannot use --port ${JSON.stringify(port)}: it is no number from 0 to 65535`);
  }
  if (!isIP(ip)) throw new UsageError(`Cannot use --ip ${JSON.stringify(ip)}: it is no IP address`);
  return { port: Number(port), ip, json, isWatched: watch };
}

async function addressOf({ values }: Call): Promise<Record<string, string>> {
  if (isElsewhere(values)) {
    return { ...(values.url && { ATOLL_URL: values.url }), ...(values.token && { ATOLL_TOKEN: values.token }) };
  }
  const config = configOf(values);
  const { endpoint } = (await findDaemon(config)) ?? (await startForAll());
  return { ATOLL_URL: endpoint.url, ATOLL_TOKEN: endpoint.token };

  /** Two programs that start at once both find no daemon; the second to start one uses the first's. */
  async function startForAll() {
    note("starting the daemon");
    for (;;) {
      try {
        return await startDetached(config, values);
      } catch (error) {
        if (!SandboxError.is(error, "RESOURCE_BUSY")) throw error;
        const daemon = await findDaemon(config);
        if (daemon) return daemon;
      }
    }
  }
}
