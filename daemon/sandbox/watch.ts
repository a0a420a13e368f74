import type { IncomingMessage } from "node:http";
import { ChangesAnswer, WatchLine } from "../../protocol/agent-live.ts";
import { SandboxError } from "../../protocol/errors.ts";
import { defaultExclude, type WatchBody, type WatchEvent } from "../../protocol/watch.ts";
import { unreachable } from "../link/connect.ts";
import { parseAnswer } from "../link/link.ts";
import { unlessSilent } from "../link/log.ts";
import type { ServeTable } from "./call.ts";
import { isoTime } from "./iso-time.ts";
import type { Run } from "./run.ts";

/** An editor's save is several changes within a few milliseconds; an event at once and one at the end tell it. */
const joinMs = 75;

/** A large tree is searched before its watch is ready: a million directories take a minute. */
const readyLimitMs = 120_000;

/** Watches of a run's files. They are set and read by the agent; a watch that nobody touches lets its sandbox sleep. */
export const watchVerbs: ServeTable<"watch" | "checkChanges"> = {
  async watch(run, { body }, { signal, letGo }) {
    const lines = await openWatch(run, body, signal);
    letGo();
    return lines;
  },

  async checkChanges(run, { body: { since, ...body } }, { signal }) {
    const json = { ...toRequest(body), ...(since !== undefined && { since }) };
    return run.link.call(ChangesAnswer, "/changes", { method: "POST", json, signal, answerWithinMs: readyLimitMs });
  },
};

function toRequest({ exclude, ...body }: WatchBody) {
  return { ...body, exclude: exclude ?? (body.include ? [] : [...defaultExclude]) };
}

/** Resolves when the watch is set. */
async function openWatch(
  run: Run,
  body: WatchBody,
  signal: AbortSignal,
): Promise<AsyncGenerator<{ event: WatchEvent }>> {
  const json = { ...toRequest(body), joinMs };
  const response = await run.link.open("/watches", { method: "POST", json, signal, answerWithinMs: readyLimitMs });
  const lines = readLines(response);
  const first = await lines.next();
  if (first.done) throw unreachable("its watch was cut off");
  return toEvents(run, first.value, lines);
}

async function* toEvents(
  run: Run,
  first: WatchLine,
  rest: AsyncGenerator<WatchLine>,
): AsyncGenerator<{ event: WatchEvent }, void, undefined> {
  try {
    for (let line = first; ;) {
      const event = toEvent(line);
      // A quiet watch is no use of the sandbox: what is told there is.
      if (event) run.activity.touch();
      if (event) yield { event };
      if (event?.type === "stopped") return;
      const next = await rest.next();
      if (next.done) throw unreachable("its watch was cut off");
      line = next.value;
    }
  } catch (error) {
    const end = SandboxError.is(error, "AGENT_UNREACHABLE") ? await run.endIfDead() : undefined;
    if (!end) throw error;
    yield {
      event: { type: "stopped", reason: `the sandbox's run has ended (${end.reason})`, timestamp: isoTime(end.at) },
    };
  } finally {
    await rest.return(undefined);
  }
}

/** Undefined for what only says that the watch lives. */
function toEvent(line: WatchLine): WatchEvent | undefined {
  if ("ready" in line) return { type: "watching", path: line.ready.path, timestamp: isoTime(Date.now()) };
  if ("event" in line) {
    const { eventType, path, isDirectory, atMs } = line.event;
    return { type: "event", eventType, path, isDirectory, timestamp: isoTime(atMs) };
  }
  if ("overflow" in line) return { type: "overflow", timestamp: isoTime(line.overflow.atMs) };
  if ("stopped" in line) return { type: "stopped", reason: line.stopped.reason, timestamp: isoTime(Date.now()) };
  if ("error" in line) throw SandboxError.from(line.error);
  return undefined;
}

/** A path of 4 KiB, escaped at worst sixfold, and little else. */
const lineLimitChars = 64 * 1024;

async function* readLines(response: IncomingMessage): AsyncGenerator<WatchLine, void, undefined> {
  let rest = "";
  try {
    for await (const chunk of unlessSilent<string>(response.setEncoding("utf8"), "watch")) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > lineLimitChars) throw unreachable("a line of its watch has no end");
      for (const line of lines) yield parseAnswer(WatchLine, line);
    }
  } catch (error) {
    throw SandboxError.is(error) ? error : unreachable("its watch was cut off", error);
  } finally {
    response.destroy();
  }
}
