import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { z } from "zod";
import { SandboxError } from "../protocol/errors.ts";
import { Duration, parseDurationMs } from "../protocol/options.ts";
import { PreviewDomain } from "../protocol/port.ts";

/**
 * Every setting of the daemon: its flag of `atoll up`, its environment variable, its default and its help, in one place.
 * A flag wins over the variable, the variable over `<data-dir>/atoll.json`, that over the default.
 */
export const settings = {
  dataDir: {
    flag: "data-dir",
    env: "ATOLL_DATA_DIR",
    default: "/var/lib/atoll/data",
    help: "where disks and records lie",
  },
  listen: {
    flag: "listen",
    env: "ATOLL_LISTEN",
    default: "127.0.0.1:7465",
    help: "ADDR:PORT of the API; port 0 takes a free one",
  },
  tokenFile: {
    flag: "token-file",
    env: "ATOLL_TOKEN_FILE",
    default: "",
    help: "file with the token; default: one is made and kept",
  },
  token: { flag: undefined, env: "ATOLL_TOKEN", default: "", help: "the token itself" },
  storeDir: {
    flag: "store-dir",
    env: "ATOLL_STORE_DIR",
    default: "/var/lib/atoll/store",
    help: "images, shared by all daemons of the machine",
  },
  hosts: {
    flag: "hosts",
    env: "ATOLL_HOSTS",
    default: "",
    help: "NAME=ADDRESS[,NAME=ADDRESS]: private services that sandboxes may reach by name",
  },
  names: {
    flag: "names",
    env: "ATOLL_NAMES",
    default: "",
    help: "NAME[,NAME]: host names, beside localhost, that the API answers to",
  },
  previewDomain: {
    flag: "preview-domain",
    env: "ATOLL_PREVIEW_DOMAIN",
    default: "",
    help: "[https://]DOMAIN[:PORT] under which previews have their names; default: localhost",
  },
  previewListen: {
    flag: "preview-listen",
    env: "ATOLL_PREVIEW_LISTEN",
    default: "",
    help: "ADDR:PORT where previews are also reached by path, /p/…; never that of the API; default: nowhere",
  },
  runtime: { flag: "runtime", env: "ATOLL_RUNTIME", default: "runc", help: "command of the OCI runtime" },
  uidBase: {
    flag: "uid-base",
    env: "ATOLL_UID_BASE",
    default: "1900000000",
    help: "first of the 65,536 user ids that sandboxes get",
  },
  sleepAfter: {
    flag: "sleep-after",
    env: "ATOLL_SLEEP_AFTER",
    default: "10m",
    help: "idle time after which a sandbox sleeps when it does not say itself",
  },
  warmPool: {
    flag: "warm-pool",
    env: "ATOLL_WARM_POOL",
    // A program rarely asks for more new sandboxes at one moment, and four cost no more memory than one small program.
    default: "4",
    help: "how many runs of the base image wait for new sandboxes, from 0 to 256; each takes 3 MiB",
  },
  logLevel: { flag: "log-level", env: "ATOLL_LOG_LEVEL", default: "info", help: "trace, debug, info, warn or error" },
} as const satisfies Record<string, { flag: string | undefined; env: string; default: string; help: string }>;

export type SettingName = keyof typeof settings;

export type Config = {
  dataDir: string;
  storeDir: string;
  /** Six characters that every host resource of this daemon carries. */
  tag: string;
  runDir: string;
  /** Where local programs find URL and token: of the default data directory the well-known place. */
  connectionFile: string;
  listen: { host: string; port: number };
  /** Given from outside; without it the daemon makes one. */
  token?: string;
  hosts: Record<string, string>;
  names: string[];
  /** Domain of previews' names; absent: localhost. */
  previewDomain?: string;
  /** Where previews are served by path; absent: nowhere. */
  previewListen?: { host: string; port: number };
  runtime: string;
  uidBase: number;
  sleepAfterMs: number;
  /** Runs that are kept ready; 0: none. */
  warmPool: number;
  logLevel: string;
};

const ConfigFile = z.partialRecord(
  z.enum(Object.keys(settings) as [SettingName, ...SettingName[]]),
  z.union([z.string(), z.number(), z.record(z.string(), z.string())]),
);

/** Reads flags (by setting name), environment and the data directory's `atoll.json`. Throws VALIDATION_FAILED naming the setting. */
export function configFrom(
  flags: Partial<Record<SettingName, string>>,
  env: Record<string, string | undefined>,
): Config {
  const dataDir = resolve(flags.dataDir ?? env[settings.dataDir.env] ?? settings.dataDir.default);
  const file = readConfigFile(`${dataDir}/atoll.json`);
  const text = (name: SettingName): string => {
    const value = flags[name] ?? env[settings[name].env] ?? file[name] ?? settings[name].default;
    return typeof value === "object"
      ? Object.entries(value)
          .map(([key, item]) => `${key}=${item}`)
          .join(",")
      : String(value);
  };
  const token = text("tokenFile") ? readToken(text("tokenFile")) : text("token");
  if (token) requireToken(token);
  const tag = createHash("sha256").update(dataDir).digest("hex").slice(0, 6);
  return {
    dataDir,
    storeDir: resolve(text("storeDir")),
    tag,
    runDir: `/run/atoll/${tag}`,
    connectionFile: dataDir === settings.dataDir.default ? "/run/atoll/connection.json" : `${dataDir}/connection.json`,
    listen: parseListen("listen", text("listen")),
    ...(token && { token }),
    hosts: parseHosts(text("hosts")),
    names: list(text("names")),
    ...(text("previewDomain") && { previewDomain: parsePreviewDomain(text("previewDomain")) }),
    ...(text("previewListen") && { previewListen: parseListen("previewListen", text("previewListen")) }),
    runtime: text("runtime"),
    uidBase: parseUidBase(text("uidBase")),
    sleepAfterMs: parseSleepAfter(text("sleepAfter")),
    warmPool: parseWarmPool(text("warmPool")),
    logLevel: parseLogLevel(text("logLevel")),
  };
}

function invalid(name: SettingName, why: string): SandboxError {
  const { flag, env } = settings[name];
  return new SandboxError("VALIDATION_FAILED", `Cannot use ${flag ? `--${flag}` : env}: ${why}`, {
    suggestion: `It is ${settings[name].help}`,
  });
}

function readConfigFile(path: string): z.infer<typeof ConfigFile> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw error;
  }
  try {
    return ConfigFile.parse(JSON.parse(text));
  } catch (cause) {
    throw new SandboxError("VALIDATION_FAILED", `Cannot read "${path}": ${(cause as Error).message}`, { cause });
  }
}

function readToken(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    throw invalid("tokenFile", (error as Error).message);
  }
}

/** Below 16 characters a token can be guessed; white space does not survive an HTTP header. */
function requireToken(token: string): void {
  if (token.length < 16) throw invalid("token", "it has fewer than 16 characters");
  if (!/^[\x21-\x7e]+$/.test(token)) throw invalid("token", "it has characters that a header cannot carry");
}

function parseListen(name: SettingName, text: string): { host: string; port: number } {
  const match = /^(.*):(\d{1,5})$/.exec(text);
  const host = match?.[1]?.replace(/^\[(.*)\]$/, "$1") ?? "";
  const port = Number(match?.[2]);
  if (!match || (host !== "localhost" && !isIP(host)) || port > 65_535) {
    throw invalid(name, `"${text}" is not ADDR:PORT`);
  }
  return { host, port };
}

function parsePreviewDomain(text: string): string {
  const parsed = PreviewDomain.safeParse(text);
  if (!parsed.success) throw invalid("previewDomain", `"${text}" is no domain`);
  return parsed.data.toLowerCase();
}

function parseHosts(text: string): Record<string, string> {
  const entries = list(text).map((entry): [string, string] => {
    const [name = "", address = ""] = entry.split("=", 2);
    if (!/^[a-z0-9-]+(\.[a-z0-9-]+)+$/i.test(name)) throw invalid("hosts", `"${name}" is not a host name with a dot`);
    if (!isIP(address)) throw invalid("hosts", `"${address}" is not an IP address`);
    return [name.toLowerCase(), address];
  });
  return Object.fromEntries(entries);
}

/** Ids of users that exist, and of what systemd and containers hand out, end below 2^31; a range must fit below 2^32. */
function parseUidBase(text: string): number {
  const uid = Number(text);
  if (!Number.isInteger(uid) || uid < 65_536 || uid > 2 ** 32 - 2 * 65_536)
    throw invalid("uidBase", `"${text}" is not a number from 65536`);
  return uid;
}

function parseSleepAfter(text: string): number {
  const duration = /^\d+$/.test(text) ? Number(text) : text;
  const parsed = Duration.safeParse(duration);
  if (!parsed.success) throw invalid("sleepAfter", parsed.error.issues[0]?.message ?? "not a duration");
  return parseDurationMs(parsed.data) ?? 0;
}

/** More at one moment than a machine of today starts within seconds anyway. */
const mostWarm = 256;

function parseWarmPool(text: string): number {
  const size = Number(text);
  if (!/^\d+$/.test(text) || size > mostWarm)
    throw invalid("warmPool", `"${text}" is not a number from 0 to ${mostWarm}`);
  return size;
}

function parseLogLevel(text: string): string {
  if (!["trace", "debug", "info", "warn", "error", "silent"].includes(text))
    throw invalid("logLevel", `"${text}" is no level`);
  return text;
}

function list(text: string): string[] {
  return text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}
