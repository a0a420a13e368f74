const prefix = 0x1d; // Ctrl-]
const leave = 0x64; // d

/**
 * Finds Ctrl-] d in what is typed, however it is cut. Each call gives what goes to the terminal; Ctrl-] twice is one of them,
 * before anything else it is passed on.
 */
export function detachKey(): (data: Uint8Array) => { typed: Uint8Array; detach: boolean } {
  let pending = false;
  return (data) => {
    const typed: number[] = [];
    for (const byte of data) {
      if (pending) {
        pending = false;
        if (byte === leave) return { typed: Uint8Array.from(typed), detach: true };
        typed.push(prefix);
        if (byte !== prefix) typed.push(byte);
      } else if (byte === prefix) pending = true;
      else typed.push(byte);
    }
    return { typed: Uint8Array.from(typed), detach: false };
  };
}
