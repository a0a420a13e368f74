import { parentPort } from "node:worker_threads";
import { keepOnly } from "./keep-only.ts";

/** What the thread is asked for, and what it answers: of an error what survives the way. */
export type KeepRequest = { upper: string; paths: readonly string[] };
export type KeepAnswer = { error?: { message: string; errno?: number; code?: string } };

parentPort?.on("message", ({ upper, paths }: KeepRequest) => parentPort?.postMessage(answer(upper, paths)));

function answer(upper: string, paths: readonly string[]): KeepAnswer {
  try {
    keepOnly(upper, paths);
    return {};
  } catch (error) {
    const { message, errno, code } = error as NodeJS.ErrnoException;
    return { error: { message, ...(errno !== undefined && { errno }), ...(code !== undefined && { code }) } };
  }
}
