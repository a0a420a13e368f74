/**
 * Starts a web server in a sandbox and shows its page at a URL, which goes on working when the sandbox has slept.
 *
 *     atoll run examples/preview.ts
 */
import { getSandbox } from "@atoll/sandbox";

const box = getSandbox("example-preview");
await box.writeFile("/workspace/package.json", JSON.stringify({ scripts: { dev: "node server.mjs" } }));
await box.writeFile(
  "/workspace/server.mjs",
  `import { createServer } from "node:http";
   let visits = 0;
   createServer((_, response) => response.end("hello, visitor " + ++visits)).listen(3000, "127.0.0.1", () =>
     console.log("Local: http://localhost:3000"));`,
);

// Started again whenever the sandbox wakes.
const server = await box.startProcess("npm run dev", { restart: "wake" });
const { match } = await server.waitForLog(/Local: +http:\/\/localhost:(\d+)/);
const { url } = await box.exposePort(Number(match?.[1]));
console.log(url);
console.log(await (await fetch(url)).text());

await box.stop();
console.log("asleep:", (await box.info()).state === "asleep");
console.log(await (await fetch(url)).text());
await box.destroy();
