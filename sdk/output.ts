import { base64ToBytes, joinBytes, textToBytes } from "./bytes.ts";

/** One piece of output as it comes from the daemon. */
export type Piece = { data: string; bytes?: string | undefined };

/** One output stream of a command: decodes its pieces and keeps them up to a limit. */
export type Output<T> = {
  /** Keeps a piece and returns it decoded; empty while a character is incomplete. */
  add(piece: Piece): T;
  /** What an incomplete character at the very end becomes; it is kept too. */
  end(): T;
  /** What is kept. */
  value(): T;
  /** Whether more came than is kept. */
  truncated(): boolean;
};

/**
 * Output as text, decoded over the borders of the pieces; what is no UTF-8 becomes U+FFFD. At most `limitBytes` of UTF-8
 * are kept, never half a character.
 */
export function textOutput(limitBytes: number): Output<string> {
  // A byte order mark is output like any other.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let text = "";
  let leftBytes = limitBytes;
  let truncated = false;
  let open = false;
  function keep(piece: string): string {
    if (truncated || piece === "") return piece;
    const size = textToBytes(piece).length;
    truncated = size > leftBytes;
    text += truncated ? firstBytesOf(piece, leftBytes) : piece;
    leftBytes -= size;
    return piece;
  }
  return {
    add({ data, bytes }) {
      const former = open && bytes === undefined ? decoder.decode() : "";
      open = bytes !== undefined;
      return keep(bytes === undefined ? former + data : decoder.decode(base64ToBytes(bytes), { stream: true }));
    },
    end: () => keep(open ? decoder.decode() : ""),
    value: () => text,
    truncated: () => truncated,
  };
}

/** The characters of `text` that fit whole into `limitBytes` of UTF-8. */
function firstBytesOf(text: string, limitBytes: number): string {
  return text.slice(0, new TextEncoder().encodeInto(text, new Uint8Array(limitBytes)).read);
}

/** Output as its exact bytes. */
export function bytesOutput(limitBytes: number): Output<Uint8Array> {
  const parts: Uint8Array[] = [];
  let leftBytes = limitBytes;
  let truncated = false;
  return {
    add({ data, bytes }) {
      const piece = bytes === undefined ? textToBytes(data) : base64ToBytes(bytes);
      truncated ||= piece.length > leftBytes;
      if (leftBytes > 0) parts.push(piece.subarray(0, leftBytes));
      leftBytes = Math.max(0, leftBytes - piece.length);
      return piece;
    },
    end: () => new Uint8Array(0),
    value: () => joinBytes(parts),
    truncated: () => truncated,
  };
}
