import { createServer, type Server, type Socket } from "node:net";
import { announce, listen } from "./listen.ts";
import type { AppOptions } from "./options.ts";

const notRunning = "The app does not run; why is told where it was started\n";
const refusal =
  "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n" +
  `Connection: close\r\nContent-Length: ${notRunning.length}\r\n\r\n${notRunning}`;

/** Where a watched app is served: connections are accepted here, and wait while the app is started again. */
export class Front implements Disposable {
  readonly #options: AppOptions;
  #server: Server | undefined;
  #waiting: Socket[] = [];
  #take: ((connection: Socket) => void) | undefined;

  constructor(options: AppOptions) {
    this.#options = options;
  }

  /** Listens, the first time, and says where. Throws when the address cannot be had. */
  async open(): Promise<void> {
    if (this.#server) return;
    this.#server = createServer({ pauseOnConnect: true }, (connection) => {
      if (this.#take) this.#take(connection);
      else this.#waiting.push(connection);
    });
    announce(await listen(this.#server, this.#options), this.#options);
  }

  giveTo(take: (connection: Socket) => void): void {
    this.#take = take;
    for (const connection of this.#waiting.splice(0)) take(connection);
  }

  /** Whoever comes waits. */
  hold(): void {
    this.#take = undefined;
  }

  /** The app does not run, and nobody knows when it will. */
  refuse(): void {
    this.giveTo((connection) => {
      connection.on("error", () => {}); // who is not there need not be told
      connection.resume();
      connection.end(refusal);
    });
  }

  [Symbol.dispose](): void {
    this.#server?.close();
    for (const connection of this.#waiting.splice(0)) connection.destroy();
  }
}
