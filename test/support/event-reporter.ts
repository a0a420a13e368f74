import { writeSync } from "node:fs";
import { inspect } from "node:util";
import type { TestEvent } from "node:test/reporters";

/** What the runner wants to know of a test file, one JSON line each. */
export type TestLine =
  | { type: "passed"; name: string }
  | { type: "skipped"; name: string; reason: string }
  | { type: "failed"; name: string; error: string };

/**
 * A reporter of node:test: the tests themselves, without the suites and parents that only hold others. It writes to
 * descriptor 3, a socket, which the runner cannot name as a destination: stdout belongs to the tests.
 */
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const path: string[] = [];
  const holders = new Set<string>();
  for await (const event of source) {
    if (event.type === "test:start") {
      path.length = event.data.nesting;
      if (path.length > 0) holders.add(path.join(" > "));
      path.push(event.data.name);
    }
    if (event.type !== "test:pass" && event.type !== "test:fail") continue;
    const name = [...path.slice(0, event.data.nesting), event.data.name].join(" > ");
    const line = event.type === "test:fail" ? failure(name, event.data) : success(name, event.data);
    // A parent fails because a child did; the child has told why. One that fails by itself, as in a hook, is told.
    if (line && (!holders.has(name) || brokeItself(event))) writeSync(3, `${JSON.stringify(line)}\n`);
  }
  yield "";
}

type Passed = Extract<TestEvent, { type: "test:pass" }>["data"];
type Failed = Extract<TestEvent, { type: "test:fail" }>["data"];

function success(name: string, data: Passed): TestLine | undefined {
  const reason = data.skip ?? data.todo;
  if (reason !== undefined && reason !== false)
    return { type: "skipped", name, reason: reason === true ? "no reason given" : reason };
  return data.details.type === "suite" ? undefined : { type: "passed", name };
}

function failure(name: string, data: Failed): TestLine {
  const { error } = data.details;
  const words = inspect(error?.cause ?? error, { depth: 6 });
  return { type: "failed", name, error: words.replace(/^ +at .*[( ]node:.*\n/gm, "") };
}

function brokeItself(event: TestEvent): boolean {
  if (event.type !== "test:fail") return false;
  const { error } = event.data.details;
  return !("failureType" in error) || error.failureType !== "subtestsFailed";
}
