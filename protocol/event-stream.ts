/** One server-sent event. `id` is absent where the sender gave none. */
export type ServerSentEvent = { id?: string; data: string };

/** Comment lines keep a silent stream alive: one every 15 s; a reader gives a stream up after 45 s of silence. */
export const keepAliveMs = 15_000;
export const silenceLimitMs = 45_000;

/** An event as text. Data is JSON, which has no line breaks of its own. */
export function encodeEvent(event: ServerSentEvent): string {
  return event.id === undefined ? `data: ${event.data}\n\n` : `id: ${event.id}\ndata: ${event.data}\n\n`;
}

/** No event of ours is longer; a stream that sends more without an end is not ours. */
const eventLimitChars = 8 * 1024 * 1024;

/**
 * The events of a byte stream, by the WHATWG rules (CR, LF and CRLF; several data lines are joined by LF; comments and
 * other fields are passed over; an event cut off by the end of the stream is dropped). The source is cancelled when the
 * reader stops. `onBytes` is called for everything that arrives, also comments. Throws RangeError for a line of more than
 * `limitChars`.
 */
export async function* decodeEvents(
  source: ReadableStream<Uint8Array>,
  onBytes: () => void = () => {},
  limitChars = eventLimitChars,
): AsyncGenerator<ServerSentEvent, void, undefined> {
  const decoder = new TextDecoder(); // takes one byte order mark away, as the rules say
  const reader = source.getReader();
  let text = "";
  let data: string[] = [];
  let id: string | undefined;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (!done) onBytes();
      text += done ? decoder.decode() : decoder.decode(value, { stream: true });
      let start = 0;
      const anyCr = text.includes("\r"); // asked once: looking for one in every line would read a chunk of many lines often
      for (;;) {
        const line = nextLine(text, start, anyCr, done);
        if (!line) break;
        start = line.next;
        if (line.text === "") {
          if (data.length > 0) yield { ...(id !== undefined && { id }), data: data.join("\n") };
          data = [];
          id = undefined;
        } else if (line.text.startsWith("data:")) data.push(line.text.slice(line.text[5] === " " ? 6 : 5));
        else if (line.text === "data") data.push("");
        else if (line.text === "id") id = "";
        else if (line.text.startsWith("id:")) id = line.text.slice(line.text[3] === " " ? 4 : 3);
      }
      if (done) return;
      text = text.slice(start);
      if (text.length > limitChars) throw new RangeError("Cannot read the event stream: a line has no end");
    }
  } finally {
    await reader.cancel().catch(() => {}); // the stream may have failed already, which the reader was told
  }
}

/** The line at `start`, or undefined while its end has not come. A CR at the very end may be half of a CRLF: wait. */
function nextLine(
  text: string,
  start: number,
  anyCr: boolean,
  complete: boolean,
): { text: string; next: number } | undefined {
  const lf = text.indexOf("\n", start);
  const cr = anyCr ? text.indexOf("\r", start) : -1;
  if (cr === -1 || (lf !== -1 && lf < cr)) {
    return lf === -1 ? undefined : { text: text.slice(start, lf), next: lf + 1 };
  }
  if (cr === text.length - 1 && !complete) return undefined;
  return { text: text.slice(start, cr), next: text[cr + 1] === "\n" ? cr + 2 : cr + 1 };
}
