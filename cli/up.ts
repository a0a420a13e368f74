import { SandboxError } from "../protocol/errors.ts";
import { configOf, findDaemon } from "./daemon.ts";
import { startDetached } from "./detach.ts";
import { bold, print, printJson } from "./output.ts";
import type { Run } from "./table.ts";
import { UsageError } from "./args.ts";

export const run: Run<"up"> = async ({ values }) => {
  if (values.url !== undefined)
    throw new UsageError("Cannot use --url with atoll up: a daemon is started here. Use --listen");
  const config = configOf(values);
  const there = await findDaemon(config);
  if (there) {
    throw new SandboxError(
      "FORBIDDEN",
      `Cannot start the daemon: one is up already at ${there.endpoint.url}, process ${there.health.pid}, with the data directory "${config.dataDir}"`,
      { suggestion: "Use that one, end it with atoll down, or choose another directory with --data-dir" },
    );
  }
  if (values.detach) {
    const { endpoint, health } = await startDetached(config, values);
    announce({ ...endpoint, pid: health.pid });
    return 0;
  }
  const { serve } = await import("../daemon/main.ts");
  // What was relative is resolved by now, and a daemon must not keep anybody's directory in use.
  process.chdir("/");
  const daemon = await serve(config);
  announce({ url: daemon.url, token: daemon.token, pid: process.pid });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.once(signal, () => void daemon.leave());
  await daemon.ended;
  return 0;

  function announce({ url, token, pid }: { url: string; token: string; pid: number }): void {
    const { dataDir, connectionFile } = config;
    if (values.json) return printJson({ url, token, pid, dataDir, connectionFile });
    // A log that catches our output must not hold the token.
    const secret = process.stdout.isTTY ? token : `in ${connectionFile}`;
    const isDefault = connectionFile === "/run/atoll/connection.json";
    const byDirectory = isDefault ? "" : ` --data-dir ${dataDir}`;
    const words = [
      bold("Atoll is up."),
      "",
      `  URL      ${url}`,
      `  Token    ${secret}`,
      `  Data     ${dataDir}`,
      `  Process  ${pid}`,
      ...(values.detach ? [`  Log      ${dataDir}/daemon.log`] : []),
      "",
      `Run a program against it:  atoll run${byDirectory} examples/first.ts`,
      `From elsewhere:            export ATOLL_URL=${url} ATOLL_TOKEN=${process.stdout.isTTY ? token : "..."}`,
      `End it, and all sleeps:    atoll down${byDirectory}`,
    ];
    print(words.join("\n"));
  }
};
