import { runProgram } from "./program.ts";
import type { FileResult } from "./test-file.ts";

/** `npm run check`: format, lint, types, imports, Go. Its parts are no tests, so they count only when they fail. */
export async function runCheck(root: string): Promise<FileResult> {
  const began = performance.now();
  const { code, stdout, stderr } = await runProgram("npm", ["run", "--silent", "check"], { cwd: root });
  const failed = code === 0 ? [] : [{ name: "npm run check", error: stdout + stderr }];
  return { path: root, passed: 0, skipped: [], failed, output: "", durationMs: performance.now() - began };
}
