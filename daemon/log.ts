import { pino, type Logger } from "pino";

export type Log = Logger;

/** Structured lines on stderr: JSON, one a line. Secrets (tokens, environments) are never put into a line. */
export function openLog(level: string): Log {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: true }),
  );
}
