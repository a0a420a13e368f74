import { getSandbox } from "../sdk/sandbox.ts";
import { connectionOf } from "./daemon.ts";
import { showTerminal } from "./show-terminal.ts";
import type { Run } from "./table.ts";

export const run: Run<"shell"> = async ({ values, arguments: [id = ""] }) => {
  const { terminal, cwd, user } = values;
  return showTerminal(getSandbox(connectionOf(values), id), { id: terminal, cwd, user });
};
