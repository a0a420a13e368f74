import { readFile } from "node:fs/promises";
import { z } from "zod";
import { type Config, configFrom, type SettingName, settings } from "../daemon/config.ts";
import { SandboxError } from "../protocol/errors.ts";
import type { Health } from "../protocol/machine.ts";
import { connect, Connection } from "../sdk/connection.ts";
import type { Endpoint } from "../sdk/endpoint.ts";
import { createTransport } from "../sdk/transport.ts";
import type { Call } from "./table.ts";

/** A daemon of this machine that answers, and how to reach it. */
export type Daemon = { endpoint: Required<Endpoint>; health: Health };

type Values = Call["values"];

/** The daemon that a verb means: `--url`, else `--data-dir`, else ATOLL_URL, else ATOLL_DATA_DIR, else the machine's own. */
export function connectionOf(values: Values): Connection {
  if (isElsewhere(values)) return connect({ url: values.url, token: values.token });
  const { connectionFile } = configOf(values);
  return new Connection(createTransport(() => readConnection(connectionFile, values.token)));
}

/** Whether the daemon is named by its address: then it may be on another machine, and is none of ours to start or end. */
export function isElsewhere(values: Values): boolean {
  return values.url !== undefined || (values["data-dir"] === undefined && Boolean(process.env["ATOLL_URL"]));
}

/** The configuration of this machine's daemon, by the flags of the command line that are settings of it. */
export function configOf(values: Readonly<Record<string, unknown>>): Config {
  const flags = (Object.keys(settings) as SettingName[]).flatMap((name): [SettingName, string][] => {
    const value = values[settings[name].flag ?? ""];
    return typeof value === "string" ? [[name, value]] : [];
  });
  return configFrom(Object.fromEntries(flags), process.env);
}

/** This machine's daemon of that data directory, if it answers. */
export async function findDaemon({ connectionFile, dataDir }: Config): Promise<Daemon | undefined> {
  try {
    const endpoint = await readConnection(connectionFile);
    const health = await createTransport(() => Promise.resolve(endpoint), once).json("health", { params: {} });
    // A port is given to another daemon when the one that wrote the file was killed.
    return health.dataDir === dataDir ? { endpoint, health } : undefined;
  } catch (error) {
    if (SandboxError.is(error)) return undefined;
    throw error;
  }
}

/** A question whose answer may be that nobody is there. */
const once = { silenceMs: 5_000, giveUpMs: 0, firstContactMs: 0 };

const Written = z.object({ url: z.string(), token: z.string() });

async function readConnection(path: string, token?: string): Promise<Required<Endpoint>> {
  try {
    const written = Written.parse(JSON.parse(await readFile(path, "utf8")));
    return { url: written.url, token: token ?? written.token };
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why =
      code === "ENOENT"
        ? `"${path}" is not there`
        : code === "EACCES"
          ? `"${path}" is its owner's only`
          : String(cause);
    throw new SandboxError("SANDBOX_UNAVAILABLE", `Cannot find a daemon: ${why}`, {
      suggestion:
        code === "EACCES"
          ? "Run this as root, or set ATOLL_URL and ATOLL_TOKEN"
          : "Start one with atoll up, or set ATOLL_URL and ATOLL_TOKEN",
      cause,
    });
  }
}
