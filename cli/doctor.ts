import { examineHost } from "../daemon/runtime/host.ts";
import type { Check } from "../protocol/machine.ts";
import { configOf, connectionOf, findDaemon, isElsewhere } from "./daemon.ts";
import { exitCodes } from "./exit-code.ts";
import { green, print, printJson, red, yellow } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"doctor"> = async ({ values }) => {
  const checks = await checksOf(values);
  const missing = checks.filter(({ ok, needed }) => needed && !ok);
  if (values.json) printJson({ ready: missing.length === 0, checks });
  else print([...checks.map(line), "", verdict(missing.length)].join("\n"));
  return missing.length === 0 ? 0 : exitCodes.refused;
};

/** The daemon knows its host best; where it does not start, this machine is looked at from here. */
async function checksOf(values: Parameters<typeof run>[0]["values"]): Promise<Check[]> {
  if (isElsewhere(values) || (await findDaemon(configOf(values)))) {
    return (await connectionOf(values).transport.json("doctor", { params: {} })).checks;
  }
  return examineHost(configOf(values));
}

function line({ name, ok, needed, detail, remedy }: Check): string {
  const mark = ok ? green("ok     ") : needed ? red("missing") : yellow("note   ");
  return `${mark}  ${name}: ${detail}${ok || !remedy ? "" : `\n         ${remedy}`}`;
}

function verdict(missing: number): string {
  if (missing === 0) return green("This host can run sandboxes.");
  return red(`This host cannot run sandboxes: ${missing === 1 ? "one thing is" : `${missing} things are`} missing.`);
}
