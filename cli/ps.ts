import { getSandbox } from "../sdk/sandbox.ts";
import type { Process } from "../sdk/process-types.ts";
import { connectionOf } from "./daemon.ts";
import { ago, dim, green, print, printJson, red, table } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"ps"> = async ({ values, arguments: [id = ""] }) => {
  const sandbox = getSandbox(connectionOf(values), id);
  const { state } = await sandbox.info(); // a name that nobody has is told as such
  const processes = await sandbox.listProcesses();
  if (values.json) printJson(values.quiet ? processes.map(({ id }) => id) : processes);
  else if (values.quiet) for (const { id } of processes) print(id);
  else if (processes.length > 0)
    print(table(["ID", "PID", "STATUS", "STARTED", "RESTART", "COMMAND"], processes.map(row)));
  else if (state === "running") print(dim("No processes. Programs start them with startProcess."));
  else print(dim(`No processes: ${id} is ${state === "none" ? "not started yet" : state}.`));
  return 0;
};

function row(process: Process): string[] {
  const { id, pid, status, exitCode, startTime, restart, command } = process;
  const words = exitCode === undefined || status === "completed" ? status : `${status} (${exitCode})`;
  const painted = status === "running" ? green(words) : status === "failed" || status === "error" ? red(words) : words;
  return [id, pid === 0 ? "" : String(pid), painted, ago(startTime.getTime()), restart ?? "", firstLine(command)];
}

/** What a list has room for. */
function firstLine(command: string): string {
  const line = command.trim().split("\n")[0] ?? "";
  return line.length > 60 || line !== command.trim() ? `${line.slice(0, 59)}…` : line;
}
