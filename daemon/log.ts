import { pino, type Logger } from "pino";

export type Log = Logger;

/**
 * Structured lines on stderr: JSON, one a line. Secrets (tokens, environments) are never put into a line. What cannot be written, on a
 * full disk, waits for the next line and is dropped in the end: telling what happens must not end what happens.
 */
export function openLog(level: string): Log {
  const stderr = pino.destination({ dest: 2, sync: true, maxLength: waitingBytes });
  stderr.on("error", () => {}); // without a listener the caller of the log would have it
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stderr);
}

/** Some thousand lines. */
const waitingBytes = 1024 * 1024;
