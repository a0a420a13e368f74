import assert from "node:assert/strict";
import { test } from "node:test";
import { asksForJson, pairs, parseCommandLine, UsageError } from "./args.ts";
import { verbs, type Call } from "./table.ts";

function parse(...args: string[]): Call {
  const request = parseCommandLine(args);
  assert.ok("call" in request, "a call, not help");
  return request.call;
}

test("verb, options and arguments are told apart, in any order", () => {
  const call = parse("ls", "--state", "running", "--label", "a=1", "--json", "--label=b=2", "-q");
  assert.equal(call.verb, "ls");
  assert.deepEqual({ ...call.values }, { state: "running", label: ["a=1", "b=2"], json: true, quiet: true });
  assert.deepEqual(parse("rm", "a", "--json", "b").arguments, ["a", "b"]);
});

test("a verb may have two words", () => {
  assert.equal(parse("image", "ls").verb, "image ls");
  assert.deepEqual(parse("image", "build", "base").arguments, ["base"]);
});

test("what follows a program is the program's own", () => {
  const rows: [string[], Pick<Call, "arguments" | "rest">, boolean?][] = [
    [["a.ts"], { arguments: ["a.ts"], rest: [] }],
    [["a.ts", "--json", "-h", "--", "x"], { arguments: ["a.ts"], rest: ["--json", "-h", "--", "x"] }],
    [["--json", "a.ts", "b"], { arguments: ["a.ts"], rest: ["b"] }, true],
    [["--url", "http://x", "a.ts", "--url"], { arguments: ["a.ts"], rest: ["--url"] }],
  ];
  for (const [words, expected, json] of rows) {
    const { arguments: own, rest, values } = parse("run", ...words);
    assert.deepEqual({ arguments: own, rest }, expected);
    assert.equal(values.json, json);
  }
});

test("a command begins behind -- or at the first word that is no option", () => {
  const rows: [string[], string[]][] = [
    [
      ["box", "--", "ls", "-l"],
      ["ls", "-l"],
    ],
    [
      ["box", "ls", "-l"],
      ["ls", "-l"],
    ],
    [["box", "--json", "--", "ls"], ["ls"]],
    [
      ["--json", "box", "ls", "--json"],
      ["ls", "--json"],
    ],
    [
      ["box", "sh", "-c", "a", "--", "b"],
      ["sh", "-c", "a", "--", "b"],
    ],
    [
      ["box", "--", "--", "x"],
      ["--", "x"],
    ],
    [["--cwd", "/tmp", "box", "--", "--help"], ["--help"]],
    [["box", "--env", "A=1", "--env=B=2", "env"], ["env"]],
  ];
  for (const [words, rest] of rows) {
    const call = parse("exec", ...words);
    assert.deepEqual(call.arguments, ["box"], words.join(" "));
    assert.deepEqual(call.rest, rest, words.join(" "));
  }
});

test("help is given for all verbs and for each", () => {
  assert.deepEqual(parseCommandLine([]), { help: undefined });
  assert.deepEqual(parseCommandLine(["--help"]), { help: undefined });
  assert.deepEqual(parseCommandLine(["help", "image", "build"]), { help: "image build" });
  for (const verb of Object.keys(verbs)) {
    for (const flag of ["--help", "-h"]) assert.deepEqual(parseCommandLine([...verb.split(" "), flag]), { help: verb });
  }
});

test("a command line that nobody can follow is refused with what is wrong", () => {
  const rows: [string[], RegExp][] = [
    [["frobnicate"], /Cannot do "frobnicate": there is no such verb\. See atoll --help/],
    [["--json", "ls"], /options stand behind the verb/],
    [["image"], /it is "atoll image ls" or "atoll image build"/],
    [["ls", "--frob"], /"atoll ls": it has no option "--frob"\. See atoll ls --help/],
    [["ls", "-x"], /no option "-x"/],
    [["up", "--listen"], /"--listen" needs a value/],
    [["up", "--listen", "--detach"], /"--listen" needs a value/],
    [["ls", "--json=yes"], /"--json" takes no value/],
    [["info"], /the id is missing/],
    [["info", ""], /the id is empty/],
    [["info", "a", "b"], /"b" is too much/],
    [["rm"], /the id is missing/],
    [["cp", "a"], /the to is missing/],
    [["run"], /the program is missing/],
    [["exec", "box"], /no command/],
    [["exec", "box", "--"], /no command/],
    [["exec", "--", "ls"], /the id is missing/],
  ];
  for (const [args, message] of rows) {
    assert.throws(
      () => parseCommandLine(args),
      (error) => error instanceof UsageError && message.test(error.message),
      args.join(" "),
    );
  }
});

test("JSON is asked for by our part of the words alone, whatever else is wrong with it", () => {
  const rows: [string, boolean][] = [
    ["ls --nonsense --json", true],
    ["--json ls", true],
    ["frobnicate --json", true],
    ["image build --json", true],
    ["exec --json", true],
    ["exec --nonsense box --json -- ls", true],
    ["exec box ls --json", false],
    ["exec -- ls --json", false],
    ["run --nonsense program.ts --json", false],
    ["run --json --nonsense program.ts", true],
    ["info", false],
  ];
  for (const [words, expected] of rows) assert.equal(asksForJson(words.split(" ")), expected, words);
});

test("pairs keep everything behind the first equals sign", () => {
  assert.deepEqual(pairs("env", ["A=1", "B=x=y", "C="]), { A: "1", B: "x=y", C: "" });
  assert.deepEqual(pairs("env", undefined), {});
  for (const text of ["A", "=1", ""]) assert.throws(() => pairs("env", [text]), UsageError);
});
