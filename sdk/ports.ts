import { SandboxError } from "../protocol/errors.ts";
import type { ExposedPort } from "../protocol/port.ts";
import type { ExposedPortInfo, ExposePortOptions, ExposePortResult } from "./port-types.ts";
import { callIn, type Scope } from "./scope.ts";

/** Contract: SandboxMethods.exposePort. */
export async function exposePort(scope: Scope, port: number, options: ExposePortOptions): Promise<ExposePortResult> {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const exposed = await callIn(scope, "exposePort", { body: { port, ...given } });
  return places(exposed);
}

/** Contract: SandboxMethods.unexposePort. */
export async function unexposePort({ transport, sandbox }: Scope, port: number): Promise<void> {
  await transport.json("unexposePort", { params: { sandbox, port: String(port) } });
}

/** Contract: SandboxMethods.getExposedPorts. */
export async function getExposedPorts({ transport, sandbox }: Scope): Promise<ExposedPortInfo[]> {
  const listing = transport.json("listExposedPorts", { params: { sandbox } });
  const { ports } = await orIfUnknown(listing, { ports: [] });
  return ports.map((port) => ({ ...places(port), status: port.status }));
}

/** Contract: SandboxMethods.validatePortToken. */
export async function validatePortToken({ transport, sandbox }: Scope, port: number, token: string): Promise<boolean> {
  const call = { params: { sandbox, port: String(port) }, body: { token } };
  return (await orIfUnknown(transport.json("validatePortToken", call), { valid: false })).valid;
}

function places({ url, port, name, pathUrl }: ExposedPort): ExposePortResult {
  return { url, port, ...(name !== undefined && { name }), ...(pathUrl !== undefined && { pathUrl }) };
}

/** A sandbox that was never used has no ports; asking does not make it. */
async function orIfUnknown<T>(answer: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (SandboxError.is(error, "SANDBOX_NOT_FOUND")) return otherwise;
    throw error;
  }
}
