import { libc, must } from "./libc.ts";
import { inNamespace } from "./namespace.ts";

/** Gives the UTS namespace at `path` this host name. From outside: nobody in there may. */
export function setHostName(path: string, name: string): void {
  const bytes = Buffer.from(name);
  inNamespace("uts", path, () => must(sethostname(bytes, bytes.length), `set the host name "${name}"`));
}

const sethostname = libc.func("int sethostname(const uint8_t *name, size_t length)") as (
  name: Buffer,
  length: number,
) => number;
