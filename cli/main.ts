import { useCompileCache } from "./compile-cache.ts";

// Before anything else is loaded: with it a verb starts in half the time.
useCompileCache();
// A reader that has seen enough, as in `atoll ls | head -1`, is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
process.stderr.on("error", () => {}); // nobody reads the notes: the work is done all the same
const { follow } = await import("./command-line.ts");
const { allPrinted } = await import("./output.ts");
const code = await follow(process.argv.slice(2));
await allPrinted();
// What a verb leaves open, such as a terminal that it reads, must not keep it from ending.
process.exit(code);
