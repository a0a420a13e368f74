import type { AddressInfo, Server } from "node:net";
import { SandboxError } from "../../protocol/errors.ts";
import { print } from "../output.ts";

/** Listens, and gives the URL. Throws when the address cannot be had. */
export async function listen(server: Server, { ip, port }: { ip: string; port: number }): Promise<string> {
  const place = `${ip.includes(":") ? `[${ip}]` : ip}:${port}`;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(refusal(place, error)));
    server.listen({ host: ip, port }, resolve);
  });
  return `http://${place.replace(/\d+$/, String((server.address() as AddressInfo).port))}`;
}

/** Says where an app is served, for people or for programs. */
export function announce(url: string, { json }: { json: boolean }): void {
  if (json) print(JSON.stringify({ url }));
  else process.stderr.write(`serving on ${url}\n`);
}

function refusal(place: string, error: NodeJS.ErrnoException): SandboxError {
  const [why, suggestion] = {
    EADDRINUSE: ["the port is taken", "Choose another with --port, or a free one with --port 0"],
    EADDRNOTAVAIL: ["this machine does not have the address", "Choose one that it has with --ip"],
    EACCES: ["the port is the system's", "Choose one from 1024 with --port"],
  }[error.code ?? ""] ?? [error.message, undefined];
  return new SandboxError("RESOURCE_BUSY", `Cannot serve on ${place}: ${why}`, {
    ...(suggestion !== undefined && { suggestion }),
    cause: error,
  });
}
