import { connect, createServer, type Server, type Socket } from "node:net";
import type { AddressInfo } from "node:net";

/** A line between a client and a server of ours that can be cut, and be out of order for a while. */
export class Relay implements Disposable {
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  #whole = true;
  /** How many connections were made. */
  made = 0;

  private constructor(target: URL) {
    this.#server = createServer((near) => {
      this.made++;
      if (!this.#whole) return void near.resetAndDestroy();
      const far = connect(Number(target.port), target.hostname);
      for (const socket of [near, far]) {
        this.#open.add(socket.setNoDelay());
        socket.on("error", () => {}); // "close" follows
        socket.on("close", () => {
          this.#open.delete(socket);
          (socket === near ? far : near).destroy();
        });
      }
      near.pipe(far).pipe(near);
    });
  }

  static async to(url: string): Promise<Relay> {
    const relay = new Relay(new URL(url));
    await new Promise<void>((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    return relay;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Every connection breaks now; new ones are made. */
  cut(): void {
    for (const socket of this.#open) socket.resetAndDestroy();
  }

  /** Every connection breaks, also new ones, until `mend`. */
  break(): void {
    this.#whole = false;
    this.cut();
  }

  mend(): void {
    this.#whole = true;
  }

  [Symbol.dispose](): void {
    this.break();
    this.#server.close();
  }
}
