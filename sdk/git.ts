import { SandboxError } from "../protocol/errors.ts";
import type { GitCheckoutResult } from "../protocol/file.ts";
import { randomId, type Scope } from "./scope.ts";

export type GitCheckoutOptions = {
  /** Branch or tag. Default: the repository's own choice. */
  branch?: string | undefined;
  /** Directory to clone into; a relative one starts at the session's directory. Default `/workspace/<name of the repository>`. */
  targetDir?: string | undefined;
  /** Commits of history to bring; all by default. */
  depth?: number | undefined;
  /** Milliseconds. Default 600,000. */
  cloneTimeoutMs?: number | undefined;
  /** Called with git's own progress, as it prints it. */
  onProgress?: ((text: string) => void) | undefined;
};

/** Contract: SessionMethods.gitCheckout. */
export async function gitCheckout(scope: Scope, url: string, options: GitCheckoutOptions): Promise<GitCheckoutResult> {
  await scope.ready();
  const { branch, targetDir, depth, cloneTimeoutMs, onProgress } = options;
  const body = {
    processId: randomId(),
    url,
    session: scope.directory,
    ...(branch !== undefined && { branch }),
    ...(targetDir !== undefined && { targetDir }),
    ...(depth !== undefined && { depth }),
    ...(cloneTimeoutMs !== undefined && { cloneTimeoutMs }),
  };
  for await (const { event } of scope.transport.events("gitCheckout", { params: { sandbox: scope.sandbox }, body })) {
    if (event.type === "progress") onProgress?.(event.text);
    if (event.type === "complete") return event.result;
  }
  throw new SandboxError("INTERNAL_ERROR", "Cannot tell how the clone ended: its events stopped without an end");
}
