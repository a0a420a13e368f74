import { writeFile } from "node:fs/promises";

/**
 * The files in /etc that belong to a run. They are written in place, also the second time: a run sees the files that were
 * there when it was made, whatever has their names later. No search line: a single word must not become a name of the outside.
 */
export async function writeEtc(dir: string, name: string, address: string): Promise<void> {
  const hosts = `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n${address} ${name}\n`;
  const write = (file: string, text: string) => writeFile(`${dir}/${file}`, text, { mode: 0o644 });
  const files = [
    write("hosts", hosts),
    write("hostname", `${name}\n`),
    write("resolv.conf", "nameserver 198.18.0.1\n"),
  ];
  await Promise.all(files);
}
