import { SandboxError } from "../protocol/errors.ts";
import { getSandbox } from "../sdk/sandbox.ts";
import { connectionOf } from "./daemon.ts";
import { print, printJson } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"rm"> = async ({ values, arguments: ids }) => {
  const connection = connectionOf(values);
  // An illegal id is refused before the first sandbox is gone.
  const sandboxes = ids.map((id) => getSandbox(connection, id));
  const results = [];
  for (const sandbox of sandboxes) results.push({ id: sandbox.id, ...(await sandbox.destroy()) });
  if (values.json) printJson(results);
  else for (const { id, existed } of results) if (existed) print(id);
  const unknown = results.filter(({ existed }) => !existed).map(({ id }) => `"${id}"`);
  if (unknown.length > 0) {
    throw new SandboxError("SANDBOX_NOT_FOUND", `Cannot remove ${unknown.join(", ")}: there is no such sandbox`);
  }
  return 0;
};
