/** What a socket reads at once. */
const pieceBytes = 64 * 1024;

/** Below that a buffer of its own costs less than the way back. */
const smallBytes = 8 * 1024;

/** So many are kept for the next who wants one; more are in use only while visitors are slow. */
const keptPieces = 32;

const kept: Buffer[] = [];

/**
 * Gives `write` a copy of what is valid for this moment only, all parts in one, and what to call when the copy is no longer
 * needed. Copies are used again: with a new one for each piece of a large body, the garbage collector would be the busiest
 * part of a relay.
 */
export function withCopy<T>(parts: readonly Buffer[], write: (copy: Buffer, done: () => void) => T): T {
  const length = lengthOf(parts);
  if (length < smallBytes || length > pieceBytes) return write(Buffer.concat(parts, length), () => {});
  const piece = kept.pop() ?? Buffer.allocUnsafeSlow(pieceBytes);
  let end = 0;
  for (const part of parts) end += part.copy(piece, end);
  return write(piece.subarray(0, end), () => {
    if (kept.length < keptPieces) kept.push(piece);
  });
}

export function lengthOf(parts: readonly Buffer[]): number {
  let length = 0;
  for (const part of parts) length += part.length;
  return length;
}
