import type { SandboxInfo } from "../protocol/sandbox.ts";
import { instanceOf } from "../protocol/options.ts";
import { getSandbox } from "../sdk/sandbox.ts";
import { connectionOf } from "./daemon.ts";
import { paint } from "./ls.ts";
import { ago, bold, print, printJson, size, span } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"info"> = async ({ values, arguments: [id = ""] }) => {
  const info = await getSandbox(connectionOf(values), id).info();
  if (values.json) printJson(info);
  else print(describe(info));
  return 0;
};

function describe(info: SandboxInfo): string {
  const { vcpu, memoryMiB, diskMB } = instanceOf(info.instance);
  const name = typeof info.instance === "string" ? `${info.instance}: ` : "";
  const labels = Object.entries(info.labels).map(([key, value]) => `${key}=${value}`);
  const lines: [string, string | undefined][] = [
    ["State", `${paint(info.state)}${info.run > 0 ? `, run ${info.run}` : ""}`],
    ["Image", `${info.image.name} (${info.image.digest})`],
    ["Instance", `${name}${vcpu} vCPU, ${memoryMiB} MiB memory, ${size(diskMB * 1e6)} disk`],
    ["Isolation", info.isolation],
    ["Created", `${new Date(info.created).toISOString()}, ${ago(info.created)}`],
    ["Last active", ago(info.lastActive)],
    ["Sleeps", info.keepAlive ? "never: keepAlive" : `after ${span(info.sleepAfterMs)} without use`],
    ["Lives at most", info.maxLifetimeMs === undefined ? undefined : span(info.maxLifetimeMs)],
    [
      "Last end",
      info.lastEnd &&
        `${info.lastEnd.reason}, ${ago(info.lastEnd.at)}${info.lastEnd.detail ? `: ${info.lastEnd.detail}` : ""}`,
    ],
    ["Labels", labels.length > 0 ? labels.join(" ") : undefined],
    ...info.ports.map(({ port, url }): [string, string] => [`Port ${port}`, url]),
  ];
  const shown = lines.filter((line): line is [string, string] => line[1] !== undefined);
  const width = Math.max(...shown.map(([title]) => title.length)) + 2;
  return [bold(info.id), ...shown.map(([title, text]) => `  ${title.padEnd(width)}${text}`)].join("\n");
}
