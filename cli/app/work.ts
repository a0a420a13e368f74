/** What is under way and must not be cut off when the app ends. */
export class Work {
  readonly #open = new Set<Promise<unknown>>();

  /** Counts `work` until it is settled, whatever becomes of it. */
  add(work: Promise<unknown>): void {
    const counted: Promise<unknown> = work
      .catch(() => {}) // whoever began it tells
      .then(() => this.#open.delete(counted));
    this.#open.add(counted);
  }

  /** Resolves when nothing is under way. */
  async done(): Promise<void> {
    while (this.#open.size > 0) await Promise.all(this.#open);
  }
}
