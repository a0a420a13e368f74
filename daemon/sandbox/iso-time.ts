/** ISO 8601 of a time that an agent or an inode tells: any number can stand there, JavaScript's dates end earlier. */
export function isoTime(ms: number): string {
  const limit = 8.64e15;
  return new Date(Math.max(-limit, Math.min(limit, ms))).toISOString();
}
