import { type Benchmark, timed } from "../benchmark.ts";
import type { Sandbox } from "../../sdk/index.ts";

const destroyed = 200;
const started = 100;

export const churn: Benchmark = {
  name: "churn",
  about: `destroy ${destroyed} sandboxes, then start ${started} new ones one after the other: what destroyed disks leave to clean up`,
  async measure({ box }) {
    const make = async (sandbox: Sandbox) => void (await sandbox.exec("head -c 1M /dev/urandom > /workspace/data"));
    const quiet: number[] = [];
    const old = await inTurns(destroyed, 8, async () => {
      const sandbox = box();
      await make(sandbox);
      return sandbox;
    });
    const before = Array.from({ length: 20 }, () => box());
    for (const sandbox of before) quiet.push(await timed(() => sandbox.exec("true", [])));
    const everyDestroy: number[] = [];
    const whole = await timed(() =>
      inTurns(destroyed, 8, async (index) => everyDestroy.push(await timed(() => old[index]!.destroy()))),
    );
    const after: number[] = [];
    const made = Array.from({ length: started }, () => box());
    for (const sandbox of made) after.push(await timed(() => sandbox.exec("true", [])));
    await inTurns(made.length, 8, (index) => made[index]!.destroy());
    await inTurns(before.length, 8, (index) => before[index]!.destroy());
    return [
      { what: "new name, before", unit: "ms", samples: quiet },
      { what: "new name, right after", unit: "ms", samples: after },
      { what: `destroy, 8 at a time`, unit: "ms", samples: everyDestroy, group: "destroy" },
      { what: `destroy, all ${destroyed}`, unit: "ms", samples: [whole], group: "all" },
    ];
  },
};

/** `work` for 0 … count-1, `width` at a time; the results in order. */
async function inTurns<T>(count: number, width: number, work: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const lane = async () => {
    for (let index = next++; index < count; index = next++) results[index] = await work(index);
  };
  await Promise.all(Array.from({ length: width }, lane));
  return results;
}
