import { AgentEvent } from "../../protocol/agent.ts";
import { unreachable } from "./connect.ts";
import { type Link, parseAnswer } from "./link.ts";

/** A line of the event stream holds one small JSON object. */
const lineLimitBytes = 64 * 1024;

/** The agent beats every 120 s; three missed beats and the stream counts as lost. */
const silenceLimitMs = 370_000;

/**
 * What happens in a run, until it or the connection ends. Its end makes the daemon look whether the run is alive.
 * Throws AGENT_UNREACHABLE when the stream breaks, falls silent or makes no sense.
 */
export async function* readEvents(link: Link, signal: AbortSignal): AsyncGenerator<AgentEvent, void, undefined> {
  const response = await link.open("/events", { signal });
  response.setTimeout(silenceLimitMs, () => response.destroy(unreachable("it fell silent")));
  let rest = "";
  try {
    response.setEncoding("utf8");
    for await (const chunk of response as AsyncIterable<string>) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > lineLimitBytes) throw unreachable("a line of its events has no end");
      for (const line of lines) if (line !== "") yield parseAnswer(AgentEvent, line);
    }
  } finally {
    response.destroy();
  }
}
