import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { buildSeccomp, refusals } from "./seccomp.ts";
import type { ContainersProfile, Seccomp, SeccompRule } from "./seccomp.ts";
import { capabilities } from "./spec.ts";

const allow = "SCMP_ACT_ALLOW";
const errno = "SCMP_ACT_ERRNO";

const profile: ContainersProfile = {
  defaultAction: errno,
  defaultErrnoRet: 38,
  archMap: [{ architecture: "SCMP_ARCH_X86_64", subArchitectures: ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] }],
  syscalls: [
    { names: ["read", "mount", "clone", "clone3", "keyctl"], action: allow, args: [], includes: {}, excludes: {} },
    { names: ["personality"], action: allow, args: [{ index: 0, value: 8, valueTwo: 0, op: "SCMP_CMP_EQ" }] },
    { names: ["arch_prctl"], action: allow, args: [], includes: { arches: ["amd64", "x32"] } },
    { names: ["set_tls"], action: allow, args: [], includes: { arches: ["arm", "arm64"] } },
    { names: ["chroot"], action: allow, includes: { caps: ["CAP_SYS_CHROOT"] } },
    { names: ["chroot"], action: errno, errnoRet: 1, excludes: { caps: ["CAP_SYS_CHROOT"] } },
    { names: ["acct"], action: allow, includes: { caps: ["CAP_SYS_PACCT"] } },
    { names: ["acct"], action: errno, errnoRet: 1, excludes: { caps: ["CAP_SYS_PACCT"] } },
    { names: ["bpf", "setdomainname"], action: allow, includes: { caps: ["CAP_SYS_ADMIN"] } },
    { names: ["bpf", "setdomainname"], action: errno, errnoRet: 1, excludes: { caps: ["CAP_SYS_ADMIN"] } },
    { names: ["socket"], action: allow, args: null, includes: { caps: ["CAP_AUDIT_WRITE"] } },
  ],
};

test("the profile is translated for our capabilities and architecture, whole", () => {
  const namespaceFlags = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000];
  assert.deepEqual(buildSeccomp(profile, capabilities, "x64"), {
    defaultAction: errno,
    defaultErrnoRet: 38,
    architectures: ["SCMP_ARCH_X86_64"],
    syscalls: [
      { names: ["read"], action: allow },
      { names: ["personality"], action: allow, args: [{ index: 0, value: 8, valueTwo: 0, op: "SCMP_CMP_EQ" }] },
      { names: ["arch_prctl"], action: allow },
      { names: ["chroot"], action: allow },
      { names: ["acct"], action: errno, errnoRet: 1 },
      { names: ["setdomainname"], action: errno, errnoRet: 1 },
      { names: [...refusals.keys()], action: errno, errnoRet: 1 },
      {
        names: ["clone"],
        action: allow,
        args: [{ index: 0, value: 0x7e020000, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }],
      },
      ...namespaceFlags.map((value) => ({
        names: ["clone"],
        action: errno,
        errnoRet: 1,
        args: [{ index: 0, value, valueTwo: value, op: "SCMP_CMP_MASKED_EQ" }],
      })),
      { names: ["clone3"], action: errno, errnoRet: 38 },
      ...[1, 2, 10, 16].map((value) => ({
        names: ["socket", "socketpair"],
        action: allow,
        args: [{ index: 0, value, op: "SCMP_CMP_EQ" }],
      })),
      {
        names: ["socket", "socketpair"],
        action: errno,
        errnoRet: 97,
        args: [{ index: 0, value: 17, op: "SCMP_CMP_GE" }],
      },
    ],
  } satisfies Seccomp);
});

test("an architecture that the profile does not know stops the start", () => {
  for (const arch of ["arm64", "riscv64"])
    assert.throws(() => buildSeccomp(profile, capabilities, arch), /Cannot build the seccomp filter/);
});

const installed = "/usr/share/containers/seccomp.json";

test("of the distribution's own profile nothing that we refuse stays allowed", { skip: !existsSync(installed) }, () => {
  const real = JSON.parse(readFileSync(installed, "utf8")) as ContainersProfile;
  for (const arch of ["x64", "arm64"]) {
    const filter = buildSeccomp(real, capabilities, arch);
    assert.notEqual(filter.defaultAction, allow);
    const allowed = (rule: SeccompRule) => rule.action === allow;
    const always = new Set(filter.syscalls.filter((rule) => allowed(rule) && !rule.args).flatMap((rule) => rule.names));
    for (const name of [...refusals.keys(), "clone", "clone3", "socket"]) assert.ok(!always.has(name), name);
    for (const name of ["read", "execve", "chown", "chroot", "setuid", "ptrace", "mknod"])
      assert.ok(always.has(name), name);
    // One action a name: what the filter library would do with two is its own affair.
    for (const rule of filter.syscalls.filter((rule) => !rule.args)) {
      for (const name of rule.names) {
        const others = filter.syscalls.filter((other) => other !== rule && other.names.includes(name));
        assert.deepEqual(
          others.filter((other) => other.action !== rule.action),
          [],
          name,
        );
      }
    }
  }
});
