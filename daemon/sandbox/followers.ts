/** Who follows the lives of which classes of sandboxes now. */
export class Followers {
  readonly #counts = new Map<string, number>();

  /** Until it is disposed, somebody follows these classes. */
  add(classes: ReadonlySet<string>): Disposable {
    for (const name of classes) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        for (const name of classes) {
          const left = (this.#counts.get(name) ?? 0) - 1;
          if (left > 0) this.#counts.set(name, left);
          else this.#counts.delete(name);
        }
      },
    };
  }

  has(className: string): boolean {
    return this.#counts.has(className);
  }
}
