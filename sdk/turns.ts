/**
 * Works that are done one after another where they have the same key, and side by side where not. At most `limit` are under way
 * or waiting: who gives more waits.
 */
export class Turns {
  readonly #limit: number;
  readonly #last = new Map<string, Promise<void>>();
  #count = 0;
  #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Resolves when the work has its place in the row. `work` does not reject. */
  async take(key: string, work: () => Promise<void>): Promise<void> {
    while (this.#count >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#count++;
    const turn = (this.#last.get(key) ?? Promise.resolve()).then(work).finally(() => {
      if (this.#last.get(key) === turn) this.#last.delete(key);
      this.#count--;
      this.#waiting.shift()?.();
    });
    this.#last.set(key, turn);
  }
}
