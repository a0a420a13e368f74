import assert from "node:assert/strict";
import { test } from "node:test";
import { staleGroups } from "./pool.ts";

test("a quota group is stale when its subvolume is neither there nor being cleaned up; btrfs's own never are", () => {
  const table = `Qgroupid    Referenced    Exclusive   Path
--------    ----------    ---------   ----
0/5              16384        16384   <toplevel>
0/256         20987904        16384   disks/a
0/257            16384        16384   <stale>
0/258            16384        16384   <under deletion>
1/300            16384        16384
`;
  const there = "ID 256 gen 10 top level 5 path disks/a\n";
  const deleted = "ID 258 gen 9 top level 0 path DELETED\n";
  assert.deepEqual(staleGroups(table, `${there}\n${deleted}`), ["0/257"]);
});
