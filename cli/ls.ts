import type { SandboxInfo } from "../protocol/sandbox.ts";
import { SandboxState } from "../protocol/sandbox.ts";
import { pairs, UsageError } from "./args.ts";
import { connectionOf } from "./daemon.ts";
import { ago, dim, green, print, printJson, table, yellow } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"ls"> = async ({ values }) => {
  const state = SandboxState.optional().safeParse(values.state);
  if (!state.success) {
    throw new UsageError(
      `Cannot list sandboxes that are "${values.state}": a state is ${SandboxState.options.join(", ")}`,
    );
  }
  const labels = pairs("label", values.label);
  const sandboxes = await connectionOf(values).listSandboxes({
    ...(state.data && { state: state.data }),
    ...(values.label && { labels }),
  });
  if (values.json) printJson(values.quiet ? sandboxes.map(({ id }) => id) : sandboxes);
  else if (values.quiet) for (const { id } of sandboxes) print(id);
  else if (sandboxes.length === 0)
    print(dim("No sandboxes. One is made when it is first used: atoll exec box -- uname -a"));
  else print(table(["ID", "STATE", "IMAGE", "INSTANCE", "LAST ACTIVE", "LABELS"], sandboxes.map(row)));
  return 0;
};

function row({ id, state, image, instance, lastActive, labels }: SandboxInfo): string[] {
  const shape = typeof instance === "string" ? instance : `${instance.vcpu} vCPU, ${instance.memoryMiB} MiB`;
  const words = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  return [id, paint(state), image.name, shape, ago(lastActive), words.join(" ")];
}

/** A state in the colour it has everywhere. */
export function paint(state: SandboxState): string {
  switch (state) {
    case "running":
      return green(state);
    case "starting":
    case "stopping":
      return yellow(state);
    case "asleep":
    case "none":
      return dim(state);
  }
}
