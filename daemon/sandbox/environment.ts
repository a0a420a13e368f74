import { caPathInside } from "./paths.ts";
import type { SandboxRecord } from "./record.ts";

/** Variables by which programs find certificates; each family of tools has its own. */
const caVariables = [
  "NODE_EXTRA_CA_CERTS",
  "SSL_CERT_FILE",
  "GIT_SSL_CAINFO",
  "CURL_CA_BUNDLE",
  "REQUESTS_CA_BUNDLE",
  "PIP_CERT",
];

/**
 * The environment of every process of a sandbox; the agent adds HOME USER LOGNAME SHELL of the process's user.
 * The sandbox's own variables win.
 */
export function environmentOf(record: SandboxRecord): Record<string, string> {
  return {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    LANG: "C.UTF-8",
    TERM: "xterm-256color",
    ATOLL_SANDBOX: record.name,
    ...Object.fromEntries(caVariables.map((name) => [name, caPathInside])),
    ...record.config.envVars,
  };
}
