import type { Connection } from "../../sdk/connection.ts";
import type { ExecutionContext } from "../../sdk/app-types.ts";
import type { SandboxClass, SandboxNamespace } from "../../sdk/sandbox.ts";

/** A module in the Workers form: its default export answers requests. */
export type AppModule = {
  fetch(request: Request, env: object, ctx: ExecutionContext): unknown;
  /** What else it exports. */
  named: ReadonlyMap<string, unknown>;
};

/** The app that a module's exports make, or undefined when it is a plain program. */
export function appOf(exports: object): AppModule | undefined {
  // of a CommonJS module what it exports is one value, which is its default, unless it was an ES module once
  const { "module.exports": common } = exports as { "module.exports"?: unknown };
  const all = new Map(Object.entries(isObject(common) ? common : exports));
  const app = isObject(common) && !("__esModule" in common) ? common : all.get("default");
  if (!isObject(app) || typeof app.fetch !== "function") return undefined;
  all.delete("default");
  const { fetch } = app as { fetch: AppModule["fetch"] };
  return { fetch: (...call) => fetch.apply(app, call), named: all };
}

/** The classes of sandboxes among the exports, as an app's `env` holds them. `base`: what they extend, or are. */
export function bindingsOf(
  named: ReadonlyMap<string, unknown>,
  base: SandboxClass,
  connection: Connection,
): Record<string, SandboxNamespace> {
  const classes = [...named].filter((entry): entry is [string, SandboxClass] => {
    const [, value] = entry;
    return typeof value === "function" && (value === base || value.prototype instanceof base);
  });
  return Object.fromEntries(classes.map(([name, sandboxClass]) => [name, { connection, sandboxClass }]));
}

/** Exported classes that are no bindings, although somebody may take them for such. */
export function strangeClasses(named: ReadonlyMap<string, unknown>, bindings: object): string[] {
  const isClass = (value: unknown) => typeof value === "function" && /^class\b/.test(String(value));
  return [...named].flatMap(([name, value]) => (isClass(value) && !(name in bindings) ? [name] : []));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
