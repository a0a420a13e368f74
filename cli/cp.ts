import { copyIn } from "./copy-in.ts";
import { copyOut } from "./copy-out.ts";
import { copyAcross } from "./copy-across.ts";
import { UsageError } from "./args.ts";
import { connectionOf } from "./daemon.ts";
import { printJson } from "./output.ts";
import { parsePlace } from "./place.ts";
import { startProgress } from "./progress.ts";
import type { Run } from "./table.ts";

export const run: Run<"cp"> = async ({ values, arguments: words }) => {
  const [from, to] = words.map(parsePlace);
  if (!from || !to) throw new UsageError("Cannot copy: give what to copy and where to");
  const connection = connectionOf(values);
  using progress = startProgress("copied");
  if (from.kind === "sandbox" && to.kind === "sandbox") await copyAcross(connection, from, to, progress);
  else if (from.kind === "sandbox" && to.kind !== "sandbox") await copyOut(connection, from, to, progress);
  else if (to.kind === "sandbox" && from.kind !== "sandbox") await copyIn(connection, from, to, progress);
  else throw new UsageError("Cannot copy: one side is in a sandbox, written id:path, such as box:/workspace");
  // A tar stream on standard output is the result; nothing may follow it.
  if (values.json && to.kind !== "stream") printJson({ from: words[0], to: words[1], bytes: progress.bytes() });
  return 0;
};
