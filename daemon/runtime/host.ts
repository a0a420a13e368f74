import { SandboxError } from "../../protocol/errors.ts";
import * as checks from "./host-checks.ts";

/** One thing that Atoll wants of the machine. */
export type Check = {
  /** Two or three words: "overlay file system". */
  name: string;
  ok: boolean;
  /** What was found, in words. */
  detail: string;
  /** What to do about it; only where something is missing. */
  remedy?: string;
  /** Whether a daemon refuses to start without it. What is not needed is worth knowing. */
  needed: boolean;
};

export type HostQuestion = {
  /** Where disks lie (the pool, or a data directory that will hold it); a directory that is not there yet is judged by its nearest parent. */
  dataDir: string;
  uidBase: number;
  /** The OCI runtime's program. */
  runtime: string;
};

/** Looks at everything that a sandbox rests on, and tries what can be tried. Changes nothing that lasts. For `atoll doctor` and for every start. */
export async function examineHost(question: HostQuestion): Promise<Check[]> {
  return Promise.all([
    checks.checkKernel(),
    checks.checkRights(),
    checks.checkCgroups(),
    checks.checkSwap(),
    checks.checkUserNamespaces(),
    checks.checkUids(question.uidBase),
    checks.checkRuntime(question.runtime),
    checks.checkPrograms(),
    checks.checkSeccomp(),
    checks.checkOverlay(question.dataDir),
    checks.checkBtrfs(),
    checks.checkTraversal(question.dataDir),
    checks.checkSpace(question.dataDir),
    checks.checkMemory(),
    checks.checkClock(),
    checks.checkBudgets(),
    checks.checkOpenFiles(),
    checks.checkCrashes(),
  ]);
}

/** Throws when something is missing that the start needs: every gap with its remedy, nothing is weakened silently. */
export function requireHost(found: readonly Check[]): void {
  const gaps = found.filter((check) => check.needed && !check.ok);
  if (gaps.length === 0) return;
  const words = gaps.map(({ name, detail }) => `${name} (${detail})`).join("; ");
  throw new SandboxError("NOT_SUPPORTED", `Cannot run sandboxes on this machine: ${words}`, {
    suggestion: gaps.flatMap(({ remedy }) => (remedy ? [remedy] : [])).join(". "),
    details: { missing: gaps.map(({ name }) => name) },
  });
}

export type Isolation = "container" | "gvisor";

/** Throws when this machine, or this version, cannot give the isolation that was asked for. */
export function requireIsolation(wanted: Isolation): void {
  if (wanted === "container") return;
  throw new SandboxError(
    "NOT_SUPPORTED",
    `Cannot isolate with "${wanted}": this version of Atoll has only "container"`,
    {
      suggestion: 'Leave isolation out or set it to "container"',
    },
  );
}
