/**
 * A playground: everybody has a computer under a name of their own.
 *
 *     atoll run examples/app.ts
 *     curl -N localhost:8787/anna/run -d 'date; sleep 1; date'    # output as it comes
 *     curl localhost:8787/anna/files/notes.txt -T notes.txt       # a file of any size, in
 *     curl localhost:8787/anna/files/notes.txt                    # and out
 *
 * A WebSocket of /anna/terminal is a terminal, as `SandboxAddon` of @atoll/sandbox/xterm shows it.
 */
import { type ExecutionContext, type ExportedHandler, getSandbox, Sandbox, SandboxError } from "@atoll/sandbox";
import type { SandboxNamespace } from "@atoll/sandbox";

export class Playground extends Sandbox {
  sleepAfter = "5m";
  instance = "lite";
}

type Env = { Playground: SandboxNamespace<Playground> };

export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const [, name = "", action = "", ...rest] = new URL(request.url).pathname.split("/");
    if (name === "") return new Response("Try /NAME/run, /NAME/files/FILE or /NAME/terminal\n", { status: 404 });
    const box = getSandbox(env.Playground, name);
    const path = rest.join("/");
    try {
      switch (`${request.method} ${action}`) {
        case "POST run":
          return await box.exec(await request.text(), { stream: true });
        case "PUT files":
          await box.writeFile(path, request.body ?? "");
          ctx.waitUntil(box.exec("touch", [".last-upload"]));
          return new Response(null, { status: 204 });
        case "GET files":
          return new Response((await box.readFile(path, { encoding: "none" })).content);
        case "GET terminal":
          return await box.terminal(request);
        case "DELETE ":
          await box.destroy();
          return new Response(null, { status: 204 });
        default:
          return new Response("There is no such thing\n", { status: 404 });
      }
    } catch (error) {
      if (!SandboxError.is(error)) throw error; // a mistake of ours: 500, and told on stderr with its place
      return new Response(`${error.message}\n`, { status: error.httpStatus });
    }
  },
} satisfies ExportedHandler<Env>;
