import { getSandbox } from "../sdk/sandbox.ts";
import { UsageError } from "./args.ts";
import { connectionOf } from "./daemon.ts";
import { showTerminal } from "./show-terminal.ts";
import type { Run } from "./table.ts";

export const run: Run<"shell"> = async ({ values, arguments: [id = ""] }) => {
  const { terminal, cwd, user, json } = values;
  if (json) throw new UsageError("Cannot use --json with a shell: a terminal shows what is printed, as it comes");
  return showTerminal(getSandbox(connectionOf(values), id), { id: terminal, cwd, user });
};
