import { finished } from "node:stream/promises";
import { stripVTControlCharacters, styleText } from "node:util";

/** Result of a verb, for people. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Result of a verb, for programs. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** What is going on, for people: on stderr, and only when it is a terminal. */
export function note(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`${styleText("dim", text, { stream: process.stderr })}\n`);
}

/**
 * Resolves when there is room for more: a slow reader slows the command, and nothing piles up here. What it means that a reader
 * has gone is said in main.ts.
 */
export async function write(stream: NodeJS.WriteStream, data: Uint8Array): Promise<void> {
  if (stream.destroyed || stream.write(data)) return;
  await Promise.race([new Promise((resolve) => stream.once("drain", resolve)), finished(stream).catch(() => {})]);
}

/** Resolves when what was printed has left: of a pipe whose reader is slow, the end would be lost with the process. */
export async function allPrinted(): Promise<void> {
  const hasLeft = (stream: NodeJS.WriteStream) => new Promise<void>((resolve) => stream.write("", () => resolve()));
  await Promise.all([process.stdout, process.stderr].map(hasLeft));
}

// styleText leaves colours out where NO_COLOR is set or nobody would see them.
export const bold = (text: string) => styleText("bold", text);
export const dim = (text: string) => styleText("dim", text);
export const green = (text: string) => styleText("green", text);
export const red = (text: string) => styleText("red", text);
export const yellow = (text: string) => styleText("yellow", text);

/** Rows in columns, the first row being the heading. */
export function table(heading: string[], rows: string[][]): string {
  const all = [heading.map((cell) => bold(cell)), ...rows];
  const lengths = heading.map((_, column) => Math.max(...all.map((row) => lengthOf(row[column] ?? ""))));
  return all
    .map((row) =>
      row
        .map((cell, column) => pad(cell, lengths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function pad(cell: string, length: number): string {
  return cell + " ".repeat(Math.max(0, length - lengthOf(cell)));
}

function lengthOf(cell: string): number {
  return stripVTControlCharacters(cell).length;
}

/** Bytes as people read them: "12.3 MB". */
export function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = bytes < 1_000 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), units.length - 1);
  const value = bytes / 1_000 ** power;
  return `${power === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[power]}`;
}

/** A length of time as people say it: "3 min", "2 days". */
export function span(ms: number): string {
  const units: [number, string][] = [
    [86_400_000, "day"],
    [3_600_000, "h"],
    [60_000, "min"],
  ];
  const [unitMs, unit] = units.find(([limit]) => ms >= limit) ?? [1_000, "s"];
  const count = Math.floor(ms / unitMs);
  return `${count} ${unit}${unit === "day" && count !== 1 ? "s" : ""}`;
}

/** How long ago a time was. */
export function ago(time: number, now = Date.now()): string {
  return `${span(Math.max(0, now - time))} ago`;
}
