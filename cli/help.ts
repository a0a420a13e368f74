import { styleText } from "node:util";
import { commonOptions, verbs, type OptionShape, type VerbName, type VerbShape } from "./table.ts";

/** Long lines are hard to read, also on a wide terminal. */
const width = 100;

/** The help of one verb, or of all. */
export function helpOf(verb: VerbName | undefined): string {
  return verb === undefined ? overview() : details(verb, verbs[verb]);
}

function overview(): string {
  const rows = Object.entries(verbs).map(([name, shape]): [string, string] => [name, shape.summary]);
  return blocks(
    "Atoll: a named, isolated, persistent Linux computer for every AI agent.",
    section("Usage", ["atoll <verb> [options]", "atoll <verb> --help"]),
    section("Verbs", columns(rows)),
    section("Options of every verb", columns(optionRows(commonOptions))),
    section(
      "Exit codes",
      wrap(
        "2 usage, 3 not found, 4 refused, 5 try again, 1 anything else. exec and run pass on those of what they run.",
      ),
    ),
  );
}

function details(name: VerbName, shape: VerbShape): string {
  const rest =
    shape.rest === "command" ? ["--", "<command>", "[arguments]"] : shape.rest === "program" ? ["[arguments]"] : [];
  const usage = ["atoll", name, ...shape.arguments.map(argumentOf), "[options]", ...rest];
  if (shape.rest === "program") usage.splice(2, 0, ...usage.splice(-2, 1));
  const own = optionRows(shape.options);
  return blocks(
    `${shape.summary}.`,
    section("Usage", [usage.join(" ")]),
    ...(shape.about ? [wrap(shape.about).join("\n")] : []),
    ...(own.length > 0 ? [section("Options", columns(own))] : []),
    section("Options of every verb", columns(optionRows(commonOptions))),
    section("Examples", shape.examples),
  );
}

function argumentOf(name: string): string {
  if (name.endsWith("?")) return `[${name.slice(0, -1)}]`;
  return name.endsWith("…") ? `<${name.slice(0, -1)}>...` : `<${name}>`;
}

function optionRows(options: Readonly<Record<string, OptionShape>>): [string, string][] {
  return Object.entries(options).map(([name, { short, value, help }]) => [
    `${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`,
    help,
  ]);
}

function blocks(...texts: string[]): string {
  return `${texts.join("\n\n")}\n`;
}

function section(title: string, lines: readonly string[]): string {
  return [styleText("bold", title), ...lines.map((line) => `  ${line}`)].join("\n");
}

function columns(rows: [string, string][]): string[] {
  const first = Math.max(...rows.map(([name]) => name.length)) + 2;
  return rows.flatMap(([name, text]) =>
    wrap(text, width - first - 2).map((line, index) => (index === 0 ? name : "").padEnd(first) + line),
  );
}

function wrap(text: string, limit = width): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= limit) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
