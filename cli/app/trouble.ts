import { inspect, styleText } from "node:util";

/** Tells on stderr what went wrong in the app, with its places in the source. `where`: what was being done. */
export function tellTrouble(where: string, error: unknown): void {
  const title = styleText("red", `Error in ${where}:`, { stream: process.stderr });
  const words = error instanceof Error ? inspect(error, { colors: false }) : `thrown: ${inspect(error)}`;
  process.stderr.write(`${title} ${words}\n`);
}
