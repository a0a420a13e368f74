import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openBox, uidBase } from "./probe/box.ts";

/**
 * What root in a sandbox can leave on its disk for the next start, when the runtime, not yet inside, makes mount points and looks
 * for device nodes. `starts: false`: the runtime refuses, in words; the sandbox has only hurt itself.
 */
const tricks: Record<string, { leave: (disk: string, outside: string) => void; starts: boolean }> = {
  "a link to outside in place of /run": { leave: (disk, outside) => replace(disk, "run", outside), starts: true },
  "a link to outside in place of /run/atoll": {
    leave: (disk, outside) => link(disk, "run/atoll", outside),
    starts: true,
  },
  "a climbing link in place of /run/atoll": {
    leave: (disk, outside) => link(disk, "run/atoll", `../../../../../../../..${outside}`),
    starts: true,
  },
  "a link to outside in place of /etc": { leave: (disk, outside) => replace(disk, "etc", outside), starts: true },
  "a link to outside in place of /etc/hosts": {
    leave: (disk, outside) => link(disk, "etc/hosts", join(outside, "hosts")),
    starts: true,
  },
  "a link to the host's process 1 in place of /etc/hosts": {
    leave: (disk, outside) => link(disk, "etc/hosts", `/proc/1/root${outside}/hosts`),
    starts: true,
  },
  "a directory in place of /etc/hosts": {
    leave: (disk) => mkdirSync(join(disk, "etc/hosts"), { recursive: true }),
    starts: false,
  },
  "a file in place of /run": {
    leave: (disk) => {
      rmSync(join(disk, "run"), { recursive: true });
      writeFileSync(join(disk, "run"), "");
    },
    starts: false,
  },
  "a link to outside in place of /proc": { leave: (disk, outside) => link(disk, "proc", outside), starts: false },
  "a link to outside in place of /sys": { leave: (disk, outside) => link(disk, "sys", outside), starts: false },
  "a link to outside in place of /dev": { leave: (disk, outside) => link(disk, "dev", outside), starts: false },
  "a file in place of /dev": { leave: (disk) => writeFileSync(join(disk, "dev"), ""), starts: false },
};

for (const [name, { leave, starts }] of Object.entries(tricks)) {
  test(`${name} leads nowhere`, async () => {
    const outside = await mkdtemp(join(tmpdir(), "atoll-outside-"));
    // What belongs to the sandbox's uid on the host, as every image and every disk does, is what could be reached.
    chownSync(outside, uidBase, uidBase);
    chmodSync(outside, 0o777);
    try {
      await using box = await openBox(["stay"], {}, (disk) => leave(disk, outside));
      const created = await box.create().then(
        (process) => ({ process }),
        (error: Error) => ({ error }),
      );
      if ("process" in created) {
        await box.runtime.start(box.run, created.process);
        await box.answers();
      } else {
        assert.match(created.error.message, /^Cannot (create the run with runc|start from this disk): ./);
      }
      assert.equal("process" in created, starts, "error" in created ? created.error.message : "it started");
      assert.deepEqual(readdirSync(outside), []);
    } finally {
      await rm(outside, { recursive: true });
    }
  });
}

function link(disk: string, path: string, target: string): void {
  mkdirSync(join(disk, path, ".."), { recursive: true });
  symlinkSync(target, join(disk, path));
}

function replace(disk: string, path: string, target: string): void {
  rmSync(join(disk, path), { recursive: true });
  symlinkSync(target, join(disk, path));
}
