import assert from "node:assert/strict";
import { test } from "node:test";
import { listMounts, mountOverlay, parseMountinfo } from "./mount.ts";

test("mountinfo is read with any number of optional fields", () => {
  const [plain, shared] = parseMountinfo(
    [
      "36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw,errors=continue",
      "41 36 0:30 / /run/atoll rw,nosuid shared:12 master:3 propagate_from:1 - tmpfs tmpfs rw,size=64k",
      "",
    ].join("\n"),
  );
  assert.deepEqual(plain, {
    id: 36,
    parentId: 35,
    root: "/mnt1",
    target: "/mnt2",
    options: ["rw", "noatime"],
    type: "ext3",
    source: "/dev/root",
    superOptions: ["rw", "errors=continue"],
  });
  assert.equal(shared?.type, "tmpfs");
  assert.deepEqual(shared?.superOptions, ["rw", "size=64k"]);
});

test("octal escapes are decoded, also where they make letters beyond ASCII, and a backslash stays one", () => {
  const line = (path: string) => `1 2 0:1 / ${path} rw - tmpfs tmpfs rw`;
  const targets = parseMountinfo(
    [line("/a\\040b"), line("/tab\\011"), line("/back\\134040"), line(latin1("/é"))].join("\n"),
  );
  assert.deepEqual(
    targets.map((mount) => mount.target),
    ["/a b", "/tab\t", "/back\\040", "/é"],
  );
});

test("a directory whose name merely begins alike is not below the prefix", () => {
  assert.ok(listMounts("/proc").some((mount) => mount.target === "/proc"));
  assert.deepEqual(listMounts("/pro"), []);
  assert.ok(listMounts().length > listMounts("/proc").length);
});

test("a path that the option syntax cannot carry is refused before anything is mounted", async () => {
  for (const path of ["/a,b", "/a:b", "/a\\b", "/a b", '/a"b']) {
    const attempt = mountOverlay({ lower: path, upper: "/u", work: "/w", target: "/t" });
    await assert.rejects(attempt, /^Error: Cannot mount the overlay at "\/t": .* holds a comma, colon/);
  }
});

/** What the kernel writes, read the way we read it. */
function latin1(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}
