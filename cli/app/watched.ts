import { statSync } from "node:fs";
import type { Server } from "node:http";
import { registerHooks } from "node:module";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import type { EndSignal } from "./end.ts";

/** What a watched program tells its watcher. */
export type Told =
  /** It has loaded a file, which was in this state. */
  | { loaded: string; state: string }
  /** It is an app, and takes connections now. */
  | { isReady: true };

/** What its watcher tells an app. */
export type Asked = { end: EndSignal } | { connection: true };

/** Tells the watcher which files the program loads; without its watcher it ends. `isOurs`: those that are not the program's. */
export function tellWatcher(isOurs: (url: string) => boolean): void {
  registerHooks({
    load(url, context, next) {
      if (url.startsWith("file:") && !url.includes("/node_modules/") && !isOurs(url)) {
        const path = fileURLToPath(url);
        tell({ loaded: path, state: stateOf(path) });
      }
      return next(url, context);
    },
  });
  process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
  process.channel?.unref(); // a program that has nothing more to do ends
}

/** Serves the connections that the watcher has accepted. */
export function acceptFromWatcher(server: Server): void {
  // a request on a connection that an earlier life has just closed could not wait for the next
  server.maxRequestsPerSocket = 1;
  process.on("message", (asked: Asked, connection: Socket) => {
    if (!("connection" in asked) || !connection) return; // without it when the client has gone meanwhile
    // as the server's own would be
    connection.allowHalfOpen = true;
    connection.setNoDelay(true);
    server.emit("connection", connection);
    connection.resume();
  });
  process.channel?.ref();
  tell({ isReady: true });
}

/** The terminal's signals reach the watcher too, which decides; without it there is nothing to wait for. */
export function onWatcherSignal(callback: (signal: EndSignal) => void): void {
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => {});
  process.on("message", (asked: Asked) => {
    if ("end" in asked) callback(asked.end);
  });
  process.on("disconnect", () => {
    callback("SIGTERM");
    callback("SIGTERM");
  });
}

/** Tells one content of a file from another, without reading it; "" when it is not there. */
export function stateOf(path: string): string {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats ? `${stats.mtimeMs} ${stats.size} ${stats.ino}` : "";
}

function tell(told: Told): void {
  process.send?.(told);
}
