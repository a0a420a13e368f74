import type { Duplex } from "node:stream";

/** Bytes both ways, each at the pace of its reader, each half closed as it ends. Resolves when both are closed. */
export function join(one: Duplex, other: Duplex, ending: AbortSignal): Promise<void> {
  const cut = () => void [one, other].map((side) => side.destroy());
  ending.addEventListener("abort", cut);
  let openSides = 2;
  return new Promise((resolve) => {
    for (const [from, to] of [
      [one, other],
      [other, one],
    ] as const) {
      from.on("error", () => to.destroy());
      from.on("close", () => {
        if (!from.readableEnded || !from.writableFinished) to.destroy();
        if (--openSides > 0) return;
        ending.removeEventListener("abort", cut);
        resolve();
      });
      from.pipe(to);
    }
    // it may have closed before anybody listened
    if (one.destroyed) other.destroy();
    if (other.destroyed) one.destroy();
  });
}
