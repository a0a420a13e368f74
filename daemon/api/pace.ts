import type { Readable } from "node:stream";

/** As many pieces as may wait for a reader: a piece of one byte costs a few hundred. */
const aheadPieces = 16;

/** Holds a source back while too much of what it gave waits for its reader. */
export class Pace {
  readonly #source: Readable;
  readonly #isOver: () => boolean;
  #ahead = 0;

  /** `isOver`: the source gives nothing more, or somebody else has it. */
  constructor(source: Readable, isOver: () => boolean) {
    this.#source = source;
    this.#isOver = isOver;
  }

  /** One more piece is on its way; `isEnough`: the next one waits until all are taken. */
  add(isEnough: boolean): void {
    if (++this.#ahead >= aheadPieces || isEnough) this.#source.pause();
  }

  /** For each piece, when its reader has it. */
  readonly taken = () => {
    if (--this.#ahead === 0 && !this.#isOver() && this.#source.isPaused()) setImmediate(this.#goOn);
  };

  readonly #goOn = () => {
    if (!this.#isOver()) this.#source.resume();
  };
}
