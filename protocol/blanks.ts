/**
 * A part of a text without the spaces and tabs around it, which HTTP allows around a header's value (RFC 9110 5.5). By hand: an
 * expression takes quadratic time over many of them.
 */
export function trimBlanks(text: string, start = 0, end = text.length): string {
  const isBlank = (at: number) => text[at] === " " || text[at] === "\t";
  while (start < end && isBlank(start)) start++;
  while (start < end && isBlank(end - 1)) end--;
  return text.slice(start, end);
}
