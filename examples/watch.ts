/**
 * Runs a sandbox's tests again whenever a source of theirs changes.
 *
 *     atoll run examples/watch.ts
 */
import { type FileWatchSSEEvent, getSandbox, parseSSEStream } from "@atoll/sandbox";

const box = getSandbox("example-watch");
await box.writeFile("/workspace/sum.mjs", "export const sum = (a, b) => a - b;\n");
await box.writeFile(
  "/workspace/sum.test.mjs",
  'import { sum } from "./sum.mjs";\nif (sum(2, 2) !== 4) throw new Error("2 + 2 is " + sum(2, 2));\n',
);

const changes = await box.watch("/workspace", { include: ["*.mjs"] });
console.log("before:", (await box.exec("node sum.test.mjs")).success ? "passed" : "failed");

// Somebody mends it meanwhile.
void box.writeFile("/workspace/sum.mjs", "export const sum = (a, b) => a + b;\n");

for await (const change of parseSSEStream<FileWatchSSEEvent>(changes)) {
  if (change.type !== "event") continue;
  const { success } = await box.exec("node sum.test.mjs");
  console.log(`after a change of ${change.path}:`, success ? "passed" : "failed");
  if (success) break;
}
await box.destroy();
