/**
 * `of`, for texts of which the same few come again and again: what it gave is looked up. It keeps at most `most`, of at most
 * `longest` characters, so who sends ever new ones costs time but no memory.
 */
export function remember<T>(most: number, longest: number, of: (text: string) => T): (text: string) => T {
  const known = new Map<string, T>();
  return (text) => {
    let result = known.get(text);
    if (result === undefined) {
      result = of(text);
      if (text.length > longest) return result;
      if (known.size >= most) known.clear();
      known.set(Buffer.from(text).toString(), result); // a copy: a piece of a text would keep the whole
    }
    return result;
  };
}
