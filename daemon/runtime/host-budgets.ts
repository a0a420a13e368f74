import { raiseSysctl, readSysctl } from "../linux/sysctl.ts";

/** A budget that all sandboxes of a machine share, because the kernel charges them to the owner of their namespaces. */
export type Budget = { name: string; atLeast: number; reason: string };

/** Sized for a thousand sandboxes. None of these reserves memory: they bound what may be asked for. */
export const hostBudgets: readonly Budget[] = [
  {
    name: "fs.inotify.max_user_instances",
    atLeast: 65_536,
    reason: "64 watchers for each sandbox; the default is 128 for all",
  },
  {
    name: "fs.inotify.max_user_watches",
    atLeast: 4_194_304,
    reason: "a dev server watches tens of thousands of directories",
  },
  { name: "kernel.pid_max", atLeast: 4_194_304, reason: "every process has a number on the host too; 4,096 a sandbox" },
  { name: "kernel.pty.max", atLeast: 65_536, reason: "terminals; a sandbox may hold 256" },
  { name: "fs.aio-max-nr", atLeast: 1_048_576, reason: "databases ask for thousands of asynchronous operations each" },
  {
    name: "kernel.keys.maxkeys",
    atLeast: 65_536,
    reason: "a run holds one kernel key, all under one uid; the default is 200",
  },
  { name: "kernel.keys.maxbytes", atLeast: 8_388_608, reason: "about 100 bytes for each of those keys" },
];

/** Raises what is too low, lowers nothing; gives what was changed and what the kernel refused ("after" below what was wanted). */
export function raiseHostBudgets(): { name: string; before: number; after: number; wanted: number }[] {
  return hostBudgets.flatMap(({ name, atLeast }) => {
    const result = raiseSysctl(name, atLeast);
    return result && result.before < atLeast ? [{ name, ...result, wanted: atLeast }] : [];
  });
}

/** Budgets that are too small now. */
export function smallHostBudgets(): (Budget & { value: number })[] {
  return hostBudgets.flatMap((budget) => {
    const value = Number(readSysctl(budget.name));
    return value < budget.atLeast ? [{ ...budget, value }] : [];
  });
}
