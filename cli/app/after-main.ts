import { registerHooks } from "node:module";

/**
 * Calls `then` with what the program's main module exports, when it has been evaluated; never when it throws. For preloads
 * (node --import): the program stays the main module, and nothing is evaluated twice.
 */
export function afterMain(then: (exports: object) => void): void {
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      const resolved = next(specifier, context);
      // Only the main module is asked for by nobody. At the end of this turn the loader has begun with it, and whoever
      // imports it now gets the same instance and waits for it.
      if (context.parentURL === undefined) setImmediate(() => void follow(resolved.url));
      return resolved;
    },
  });

  async function follow(url: string): Promise<void> {
    hooks.deregister();
    let exports: object;
    try {
      exports = (await import(url)) as object;
    } catch {
      return; // Node tells what the main module throws
    }
    then(exports);
  }
}
