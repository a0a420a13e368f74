/**
 * Bytes that wait for a judgement, as one piece. Adding is linear however small the parts are: what is sent byte by byte
 * must not cost more than it costs its sender.
 */
export type Hold = {
  /** All that waits; valid until the next call. */
  readonly bytes: Buffer;
  readonly size: number;
  add(chunk: Buffer): void;
  /** Removes the first `count` bytes and gives those of them that were not released. */
  take(count: number): Buffer;
  /** Gives what was not given before. The bytes stay. */
  release(): Buffer;
};

export function createHold(): Hold {
  let store: Buffer = empty;
  let start = 0;
  let end = 0;
  let released = 0;
  /** Whether the store is ours; a first chunk is kept as it is, without a copy. */
  let owned = false;

  return {
    get bytes() {
      return store.subarray(start, end);
    },
    get size() {
      return end - start;
    },
    add: (chunk) => {
      if (start === end) {
        [store, start, end, released, owned] = [chunk, 0, chunk.length, 0, false];
        return;
      }
      if (!owned || end + chunk.length > store.length) {
        const grown = Buffer.allocUnsafe(Math.max(2 * (end - start), 1024) + chunk.length);
        store.copy(grown, 0, start, end);
        [store, start, end, owned] = [grown, 0, end - start, true];
      }
      chunk.copy(store, end);
      end += chunk.length;
    },
    take: (count) => {
      const part = store.subarray(start + Math.min(released, count), start + count);
      start += count;
      released = Math.max(0, released - count);
      return part;
    },
    release: () => {
      const part = store.subarray(start + released, end);
      released = end - start;
      return part;
    },
  };
}

const empty = Buffer.alloc(0);
