/** What a socket reads at once. */
const pieceBytes = 64 * 1024;

/** Below that a buffer of its own costs less than the way back. */
const smallBytes = 8 * 1024;

/** So many are kept for the next who wants one; more are in use only while visitors are slow. */
const keptPieces = 32;

const kept: Buffer[] = [];

/**
 * Gives `write` a copy of what is valid for this moment only, and what to call when the copy is no longer needed. Copies are
 * used again: with a new one for each piece of a large body, the garbage collector would be the busiest part of a relay.
 */
export function withCopy<T>(part: Buffer, write: (copy: Buffer, done: () => void) => T): T {
  if (part.length < smallBytes || part.length > pieceBytes) return write(Buffer.from(part), () => {});
  const piece = kept.pop() ?? Buffer.allocUnsafeSlow(pieceBytes);
  part.copy(piece);
  return write(piece.subarray(0, part.length), () => {
    if (kept.length < keptPieces) kept.push(piece);
  });
}
