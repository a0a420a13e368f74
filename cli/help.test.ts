import assert from "node:assert/strict";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { parseCommandLine } from "./args.ts";
import { helpOf } from "./help.ts";
import { verbs, type VerbName } from "./table.ts";

const names = Object.keys(verbs) as VerbName[];

test("the help of all names every verb, and of one every option", () => {
  for (const [name, { summary }] of Object.entries(verbs)) {
    assert.match(helpOf(undefined), new RegExp(`^  ${name} +${summary.slice(0, 20)}`, "m"));
  }
  for (const name of names) {
    for (const option of Object.keys(verbs[name].options)) assert.ok(helpOf(name).includes(`--${option}`), name);
  }
});

test("help fits a terminal of 100 columns", () => {
  for (const name of [undefined, ...names]) {
    for (const line of stripVTControlCharacters(helpOf(name)).split("\n")) assert.ok(line.length <= 102, line);
  }
});

test("every example of the help can be followed", () => {
  for (const { examples } of Object.values(verbs)) {
    for (const example of examples) {
      // What a shell would take away: other commands of a pipe, and quotes.
      const command = example.split(" | ").find((part) => part.startsWith("atoll "))!;
      const words = command.match(/'[^']*'|\$\([^)]*\)|\S+/g)!.slice(1);
      assert.ok("call" in parseCommandLine(words), example);
    }
  }
});
