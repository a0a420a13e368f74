import { defaultConnection } from "../../sdk/connection.ts";
import { followLifecycle } from "../../sdk/lifecycle.ts";
import { Sandbox } from "../../sdk/sandbox.ts";
import { sendKey } from "../../sdk/send.ts";
import { exitCodeOf } from "../exit-code.ts";
import { tell } from "../tell.ts";
import { end, onOwnSignal } from "./end.ts";
import { announce, listen } from "./listen.ts";
import { type AppModule, bindingsOf, strangeClasses } from "./module.ts";
import type { AppOptions } from "./options.ts";
import { send } from "./send.ts";
import { makeServer } from "./serve.ts";
import { installWebSockets } from "./switching.ts";
import { tellTrouble } from "./trouble.ts";
import { acceptFromWatcher, onWatcherSignal } from "./watched.ts";
import { Work } from "./work.ts";

/** Serves an app until a signal ends it, and gives the exit code. */
export async function host(app: AppModule, options: AppOptions): Promise<number> {
  installWebSockets();
  Object.defineProperty(globalThis, sendKey, { value: send });
  const bindings = bindingsOf(app.named, Sandbox, defaultConnection());
  const env = environmentFor(app, bindings);
  const work = new Work();
  const ending = new AbortController();
  const server = makeServer({ fetch: (request, ctx) => app.fetch(request, env, ctx), work, ending: ending.signal });
  // Like other servers for development: one request's mistake is no reason to refuse all others.
  // Whoever read what we tell may have gone (`| head`): to tell of that too would never end.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  process.on("uncaughtException", (error) => tellTrouble("the app", error));
  process.on("unhandledRejection", (reason) => tellTrouble("a promise that nobody awaits", reason));
  const ended = end({ server, work, ending, onSignal: options.isWatched ? onWatcherSignal : onOwnSignal });
  try {
    await followLifecycle({
      bindings,
      signal: ending.signal,
      onCallbackError: (error, where) => tellTrouble(where, error),
      waitUntil: (callback) => work.add(callback),
    });
    if (options.isWatched) acceptFromWatcher(server);
    else announce(await listen(server, options), options);
  } catch (error) {
    tell(error, options.json);
    return exitCodeOf(error);
  }
  return ended;
}

/** The app's bindings and, behind them, its environment without what opens the daemon: env is easily passed on or shown. */
function environmentFor({ named }: AppModule, bindings: object): object {
  for (const name of strangeClasses(named, bindings)) {
    process.stderr.write(`the export "${name}" is no class of sandboxes: env has no binding of this name\n`);
  }
  const { ATOLL_TOKEN: _token, ...variables } = process.env;
  return { ...variables, ...bindings };
}
