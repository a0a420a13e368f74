import { SandboxError } from "../protocol/errors.ts";
import { PreviewAuth } from "../protocol/port.ts";
import { getSandbox } from "../sdk/sandbox.ts";
import { UsageError } from "./args.ts";
import { connectionOf } from "./daemon.ts";
import { dim, print, printJson, table } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"port"> = async ({ values, arguments: [id = "", given] }) => {
  const sandbox = getSandbox(connectionOf(values), id);
  if (given === undefined) {
    const idle = (["name", "url-token", "hostname", "auth", "remove"] as const).find(
      (option) => values[option] !== undefined,
    );
    if (idle) throw new UsageError(`Cannot use --${idle} without a port: give it behind the id`);
    await sandbox.info(); // a name that nobody has is told as such
    const ports = await sandbox.getExposedPorts();
    if (values.json) printJson(ports);
    else if (ports.length === 0) print(dim("No port has a URL. Give one: atoll port ID PORT"));
    else
      print(
        table(
          ["PORT", "NAME", "URL"],
          ports.map(({ port, name, url }) => [String(port), name ?? "", url]),
        ),
      );
    return 0;
  }
  const port = /^\d{1,5}$/.test(given) ? Number(given) : NaN;
  if (Number.isNaN(port)) throw new SandboxError("INVALID_PORT", `Cannot use "${given}": it is no port`);
  if (values.remove) {
    await sandbox.unexposePort(port);
    if (values.json) printJson({ port });
    return 0;
  }
  const exposed = await sandbox.exposePort(port, {
    name: values.name,
    token: values["url-token"],
    hostname: values.hostname,
    auth: authOf(values.auth),
  });
  if (values.json) printJson(exposed);
  else print(exposed.url);
  return 0;
};

function authOf(text: string | undefined): PreviewAuth | undefined {
  if (text === undefined) return undefined;
  const parsed = PreviewAuth.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new UsageError(`--auth is token, bearer or public, not "${text}"`);
}
