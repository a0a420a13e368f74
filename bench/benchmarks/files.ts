import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Benchmark, type Contestant, interleave, timed } from "../benchmark.ts";

const sizeBytes = 256 * 2 ** 20;
const small = 1_000;

export const files: Benchmark = {
  name: "files",
  about: `256 MiB into and out of a sandbox, from and to a file of the host's; ${small} files of 1 KiB, one after the other and 16 at a time`,
  async measure({ box, peers: { docker } }) {
    await using cleanup = new AsyncDisposableStack();
    const dir = await mkdtemp(join(tmpdir(), "atoll-bench-files-"));
    cleanup.defer(() => rm(dir, { recursive: true, force: true }));
    const big = join(dir, "big");
    const back = join(dir, "back");
    await writeNoise(big);
    const sandbox = box();
    cleanup.defer(async () => void (await sandbox.destroy()));
    await sandbox.exec("true", []);

    const rate = async (work: () => Promise<unknown>) => sizeBytes / 1e6 / ((await timed(work)) / 1_000);
    const into: Contestant[] = [
      {
        what: "in, writeFile of a stream",
        unit: "MB/s",
        group: "in",
        round: () => rate(() => sandbox.writeFile("/workspace/big", webStream(big))),
      },
    ];
    const out: Contestant[] = [
      {
        what: "out, readFile as a stream",
        unit: "MB/s",
        group: "out",
        round: () =>
          rate(async () => {
            const { content } = await sandbox.readFile("/workspace/big", { encoding: "none" });
            await pipeline(Readable.fromWeb(content as never), createWriteStream(back));
          }),
      },
    ];
    if (docker) {
      await docker.ready();
      const run = ["run", "--detach", "--init", "--network", "none", "base", "sleep", "1000000"];
      const id = (await docker.docker(...run)).trim();
      cleanup.defer(async () => void (await docker.docker("rm", "--force", id)));
      const copy = (from: string, to: string) => rate(() => docker.docker("cp", from, to));
      into.push({ what: "in, docker cp", unit: "MB/s", group: "in", round: () => copy(big, `${id}:/workspace/big`) });
      out.push({ what: "out, docker cp", unit: "MB/s", group: "out", round: () => copy(`${id}:/workspace/big`, back) });
    }
    const copied = () => rate(() => pipeline(createReadStream(big), createWriteStream(back)));
    into.push({ what: "node copies it on the host", unit: "MB/s", group: "in", round: copied });
    const large = await interleave([...into, ...out], 5);

    const text = "x".repeat(1_024);
    const write = (index: number) => sandbox.writeFile(`/workspace/small/${index}`, text);
    const read = (index: number) => sandbox.readFile(`/workspace/small/${index}`);
    const lanes = (width: number, work: (index: number) => Promise<unknown>) =>
      timed(() =>
        Promise.all(
          Array.from({ length: width }, async (_, lane) => {
            for (let index = lane; index < small; index += width) await work(index);
          }),
        ),
      );
    const counted = await interleave(
      [
        { what: `${small} written, one by one`, group: "small", round: () => lanes(1, write) },
        { what: `${small} written, 16 at a time`, group: "small", round: () => lanes(16, write) },
        { what: `${small} read, one by one`, group: "small", round: () => lanes(1, read) },
        { what: `${small} read, 16 at a time`, group: "small", round: () => lanes(16, read) },
      ],
      3,
    );
    return [...large, ...counted];
  },
};

function webStream(path: string): ReadableStream<Uint8Array> {
  return Readable.toWeb(createReadStream(path, { highWaterMark: 256 * 1024 })) as ReadableStream<Uint8Array>;
}

async function writeNoise(path: string): Promise<void> {
  await using file = await open(path, "w");
  const block = crypto.getRandomValues(new Uint8Array(65_536));
  for (let written = 0; written < sizeBytes; written += block.length) await file.write(block);
}
