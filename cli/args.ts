import { parseArgs, type ParseArgsOptionDescriptor } from "node:util";
import { commonOptions, verbs, type Call, type OptionShape, type VerbName, type VerbShape } from "./table.ts";

/** A command line that nobody can follow. The message says what is wrong and where the help is. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** What a command line asks for: a verb's work, or help, for one verb or for all. */
export type Request = { call: Call } | { help: VerbName | undefined };

/** Parses what stands behind `atoll`. Throws UsageError. */
export function parseCommandLine(args: readonly string[]): Request {
  const words = args[0] === "help" ? args.slice(1) : args;
  if (words.length === 0 || words[0] === "--help" || words[0] === "-h") return { help: undefined };
  const verb = verbOf(words);
  if (args[0] === "help") return { help: verb };
  const shape: VerbShape = verbs[verb];
  const own = words.slice(verb.split(" ").length);
  const end = endOfOwn(own, shape);
  const { values, positionals } = parseOwn(verb, own.slice(0, end));
  if (values["help"]) return { help: verb };
  requireArguments(verb, shape, positionals);
  const rest = own.slice(own[end] === "--" && shape.rest === "command" ? end + 1 : end);
  if (shape.rest === "command" && rest.length === 0) throw wrong(verb, `there is no command behind "--"`);
  // The table made the options that were parsed, and it makes the type.
  return { call: { verb, values, arguments: positionals, rest } as unknown as Call };
}

/** Whether our part of the words asks for JSON, also where nobody can follow the rest: errors are told in that form. */
export function asksForJson(args: readonly string[]): boolean {
  const verb = knownVerbOf(args);
  if (verb === undefined) return args.includes("--json");
  const own = args.slice(verb.split(" ").length);
  return own.slice(0, endOfOwn(own, verbs[verb])).includes("--json");
}

const names = Object.keys(verbs) as VerbName[];

function knownVerbOf([first = "", second = ""]: readonly string[]): VerbName | undefined {
  return names.find((name) => name === first || name === `${first} ${second}`);
}

function verbOf(words: readonly string[]): VerbName {
  const verb = knownVerbOf(words);
  if (verb) return verb;
  const [first = ""] = words;
  const below = names.filter((name) => name.startsWith(`${first} `)).map((name) => `"atoll ${name}"`);
  if (below.length > 0)
    throw new UsageError(`Cannot do "${words.join(" ")}": it is ${below.join(" or ")}. See atoll --help`);
  const what = first.startsWith("-") ? "options stand behind the verb" : "there is no such verb";
  throw new UsageError(`Cannot do "${first}": ${what}. See atoll --help`);
}

/** Where our part of the words ends and somebody else's begins. */
function endOfOwn(words: string[], shape: VerbShape): number {
  if (shape.rest === undefined) return words.length;
  const options = descriptors(shape);
  const { tokens } = parseArgs({ args: words, options, strict: false, allowPositionals: true, tokens: true });
  const ends = tokens.flatMap((token) => {
    if (token.kind === "option") return [];
    return token.kind === "option-terminator" ? [{ index: token.index, terminator: true }] : [{ index: token.index }];
  });
  const count = shape.arguments.length;
  if (shape.rest === "program") return (ends[count - 1]?.index ?? words.length - 1) + 1;
  const terminator = ends.findIndex((end) => "terminator" in end);
  const at = terminator >= 0 && terminator < count ? terminator : count;
  return ends[at]?.index ?? words.length;
}

type Parsed = { values: Record<string, unknown>; positionals: string[] };

function parseOwn(verb: VerbName, args: string[]): Parsed {
  try {
    return parseArgs({ args, options: descriptors(verbs[verb]), allowPositionals: true });
  } catch (error) {
    throw wrong(verb, wordsOf(error));
  }
}

function descriptors(shape: VerbShape): Record<string, ParseArgsOptionDescriptor> {
  const options: [string, OptionShape][] = Object.entries({ ...shape.options, ...commonOptions });
  return Object.fromEntries(
    options.map(([name, { value, short, multiple }]) => [
      name,
      { type: value === undefined ? "boolean" : "string", ...(short && { short }), ...(multiple && { multiple }) },
    ]),
  );
}

/** Node's own sentences are long and say how to write what nobody meant. */
function wordsOf(error: unknown): string {
  const { code, message } = error as { code?: string; message: string };
  const name = /'(-[^' ]*)/.exec(message)?.[1] ?? "";
  if (code === "ERR_PARSE_ARGS_UNKNOWN_OPTION") return `it has no option "${name}"`;
  if (/ argument missing|is ambiguous/.test(message))
    return `"${/(--[a-z-]+)/.exec(message)?.[1] ?? name}" needs a value`;
  if (/does not take an argument/.test(message)) return `"${/(--[a-z-]+)/.exec(message)?.[1] ?? name}" takes no value`;
  return message;
}

function requireArguments(verb: VerbName, shape: VerbShape, given: string[]): void {
  const needed = shape.arguments.filter((name) => !name.endsWith("?"));
  const most = shape.arguments.some((name) => name.endsWith("…")) ? Infinity : shape.arguments.length;
  const missing = needed[given.length];
  if (missing !== undefined) throw wrong(verb, `the ${missing.replace("…", "")} is missing`);
  const extra = given[most];
  if (extra !== undefined) throw wrong(verb, `"${extra}" is too much`);
  const empty = given.findIndex((argument) => argument === "");
  if (empty >= 0) throw wrong(verb, `the ${shape.arguments[Math.min(empty, shape.arguments.length - 1)]} is empty`);
}

function wrong(verb: VerbName, why: string): UsageError {
  return new UsageError(`Cannot follow "atoll ${verb}": ${why}. See atoll ${verb} --help`);
}

/** `NAME=VALUE` pairs, as --env and --label take them. Throws UsageError for anything else. */
export function pairs(option: string, texts: readonly string[] = []): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf("=");
      if (at < 1) throw new UsageError(`Cannot use --${option} ${JSON.stringify(text)}: it is not NAME=VALUE`);
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}
