import { SandboxError } from "../protocol/errors.ts";
import { parseSSEStream } from "../sdk/events.ts";
import { getSandbox } from "../sdk/sandbox.ts";
import type { FileWatchSSEEvent } from "../sdk/watch.ts";
import { connectionOf } from "./daemon.ts";
import { note, print } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"watch"> = async ({ values, arguments: [id = "", path = ""] }) => {
  const { include, exclude, flat, json } = values;
  const sandbox = getSandbox(connectionOf(values), id);
  const stream = await sandbox.watch(path, { recursive: !flat, include, exclude });
  for await (const event of parseSSEStream<FileWatchSSEEvent>(stream)) {
    if (json) print(JSON.stringify(event));
    else tell(event);
    if (event.type === "error" && !event.overflow) throw new SandboxError("AGENT_UNREACHABLE", event.error);
  }
  return 0;
};

function tell(event: FileWatchSSEEvent): void {
  switch (event.type) {
    case "watching":
      note(`watching ${event.path}`);
      break;
    case "event":
      print(`${event.eventType.padEnd(9)} ${event.path}${event.isDirectory ? "/" : ""}`);
      break;
    case "error":
      if (event.overflow) print(`overflow  ${event.error}`);
      break;
    case "stopped":
      print(`stopped   ${event.reason}`);
      break;
  }
}
