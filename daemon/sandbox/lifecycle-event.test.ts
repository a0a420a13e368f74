import assert from "node:assert/strict";
import { test } from "node:test";
import { LifecycleEvent } from "../../protocol/lifecycle.ts";
import { EndReason } from "../../protocol/sandbox.ts";
import type { LifeLine } from "./journal.ts";
import { toLifecycleEvent } from "./lifecycle-event.ts";

const box = { name: "box", className: "AgentBox" };
const classes = new Set(["AgentBox"]);
const line = (type: LifeLine["type"], data: LifeLine["data"] = {}): LifeLine => ({
  ...{ time: 5, sandboxKey: "k", run: 2, type, data },
});
const about = { sandbox: "box", className: "AgentBox", run: 2, time: 5 };
const error = { code: "NO_SPACE", message: "Cannot start it: full" } as const;

test("every end has its exit code, and only one that nobody asked for an error", () => {
  const told = Object.fromEntries(
    EndReason.options.map((reason) => {
      const event = toLifecycleEvent(line("run.end", { reason, at: 5 }), box, classes);
      if (event) assert.deepEqual(LifecycleEvent.parse(event), event);
      return [reason, event?.type === "stop" ? [event.exitCode, event.error !== undefined] : event];
    }),
  );
  assert.deepEqual(told, {
    asked: [0, false],
    idle: [0, false],
    lifetime: [0, false],
    space: [0, false],
    memory: [137, true],
    "agent-lost": [137, true],
    "host-restart": [137, true],
    "start-failed": undefined,
  });
});

test("starts, failures and idle times are told", () => {
  assert.deepEqual(toLifecycleEvent(line("run.start", { run: 2 }), box, classes), { type: "start", ...about });
  assert.deepEqual(toLifecycleEvent(line("run.idle"), box, classes), { type: "activityExpired", ...about });
  const failed = { type: "startFailed", ...about, error };
  assert.deepEqual(toLifecycleEvent(line("start.failed", { error }), box, classes), failed);
  assert.deepEqual(
    toLifecycleEvent(line("run.end", { reason: "start-failed", at: 5, error }), box, classes),
    failed,
    "one that was cut off with its daemon has no line of its own",
  );
});

test("what is of another class, of none, or of nobody known is not told", () => {
  const start = line("run.start");
  assert.equal(toLifecycleEvent(start, { name: "box", className: "Other" }, classes), undefined);
  assert.equal(toLifecycleEvent(start, { name: "box" }, classes), undefined);
  assert.equal(toLifecycleEvent(start, undefined, classes), undefined);
});
