import { run } from "./run.ts";

/** What one user namespace may hold of the budgets that the whole host shares. */
export type UserNamespaceLimits = {
  /** Nested user namespaces; 0 closes the largest door into the kernel. */
  userNamespaces: number;
  inotifyInstances: number;
  inotifyWatches: number;
};

/**
 * Bounds the user namespace of process `pid` (a created, not yet started run). The limits hang on the namespace of whoever writes
 * them, so a short-lived program joins it and writes into the host's own /proc; from inside, /proc/sys is read-only.
 */
export async function limitUserNamespace(pid: number, limits: UserNamespaceLimits): Promise<void> {
  await run("nsenter", [
    `--user=/proc/${pid}/ns/user`,
    "sysctl",
    "--quiet",
    "--write",
    `user.max_user_namespaces=${limits.userNamespaces}`,
    `user.max_inotify_instances=${limits.inotifyInstances}`,
    `user.max_inotify_watches=${limits.inotifyWatches}`,
  ]);
}
