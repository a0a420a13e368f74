import { raiseSysctl, readSysctl } from "../linux/sysctl.ts";

/** A budget that all sandboxes of a machine share: the kernel charges them to one uid, or to the owner of their namespaces. */
export type Budget = {
  name: string;
  atLeast: number;
  reason: string;
  /** Zero means no bound at all, so it is left. */
  zeroIsBoundless?: true;
};

/** Sized for a thousand sandboxes. None reserves memory, and what is taken is charged to the sandbox that takes it. */
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
  {
    name: "fs.pipe-user-pages-soft",
    atLeast: 4_194_304,
    reason: "beyond it pipes shrink to a page; the default is 1,024 pipes for all sandboxes together",
    zeroIsBoundless: true,
  },
  {
    name: "fs.epoll.max_user_watches",
    atLeast: 16_777_216,
    reason: "one sandbox must not take every event registration",
  },
  { name: "fs.file-max", atLeast: 100_000_000, reason: "one sandbox must not take every open file of the machine" },
  { name: "fs.aio-max-nr", atLeast: 1_048_576, reason: "databases ask for thousands of asynchronous operations each" },
  { name: "kernel.pid_max", atLeast: 4_194_304, reason: "every process has a number on the host too; 4,096 a sandbox" },
  { name: "kernel.threads-max", atLeast: 4_194_304, reason: "as kernel.pid_max" },
  { name: "kernel.pty.max", atLeast: 65_536, reason: "terminals; a sandbox may hold 256" },
  {
    name: "kernel.keys.maxkeys",
    atLeast: 65_536,
    reason: "a run holds one kernel key, all under one uid; the default is 200",
  },
  { name: "kernel.keys.maxbytes", atLeast: 8_388_608, reason: "about 100 bytes for each of those keys" },
  { name: "vm.max_map_count", atLeast: 262_144, reason: "search engines and databases refuse to start with less" },
];

/** Raises what is too low, lowers nothing; gives what was changed and what the kernel refused ("after" below "wanted"). */
export function raiseHostBudgets(): { name: string; before: number; after: number; wanted: number }[] {
  return smallHostBudgets().flatMap(({ name, atLeast }) => {
    const result = raiseSysctl(name, atLeast);
    return result ? [{ name, ...result, wanted: atLeast }] : [];
  });
}

/** Budgets that are too small now. */
export function smallHostBudgets(): (Budget & { value: number })[] {
  return hostBudgets.flatMap((budget) => {
    const value = Number(readSysctl(budget.name));
    if (budget.zeroIsBoundless && value === 0) return [];
    return value < budget.atLeast ? [{ ...budget, value }] : [];
  });
}
