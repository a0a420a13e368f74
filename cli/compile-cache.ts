import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

/** Keeps compiled modules in this checkout, where only its owner can write; where we are not, nothing is kept. */
export function useCompileCache(): void {
  enableCompileCache(fileURLToPath(new URL("../.build/compile-cache", import.meta.url)));
}
