import { SandboxError } from "../protocol/errors.ts";
import { ClassName } from "../protocol/names.ts";

const names = new WeakMap<object, string>();

/**
 * From now on sandboxes of this namespace are told to be of the class of this name, and somebody calls its callbacks. Throws
 * VALIDATION_FAILED for what cannot name a class.
 */
export function bind(namespace: object, name: string): void {
  const parsed = ClassName.safeParse(name);
  if (!parsed.success) {
    const why = parsed.error.issues[0]?.message ?? "";
    throw new SandboxError("VALIDATION_FAILED", `Cannot bind the class ${JSON.stringify(name.slice(0, 80))}: ${why}`, {
      suggestion: "Export it under another name",
    });
  }
  names.set(namespace, name);
}

/** The name that a namespace is bound under. */
export function bindingOf(namespace: object): string | undefined {
  return names.get(namespace);
}
