import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, chown, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../../test/support/until.ts";
import { openCgroups } from "../../linux/cgroup.ts";
import type { Cgroups } from "../../linux/cgroup.ts";
import { mountOverlay, mountTmpfs, unmount } from "../../linux/mount.ts";
import { killAndWait } from "../../linux/process.ts";
import type { ProcessId } from "../../linux/process.ts";
import { run } from "../../linux/run.ts";
import { readHostLimits } from "../host-limits.ts";
import { openRuntime } from "../oci.ts";
import type { Runtime } from "../oci.ts";
import { buildSeccomp } from "../seccomp.ts";
import type { ContainersProfile } from "../seccomp.ts";
import { buildSpec, capabilities } from "../spec.ts";
import type { OciSpec, RunLimits } from "../spec.ts";

export const uidBase = 1_900_000_000;

/** A run of the probe, with real mounts, a network namespace and groups of its own. Disposing gives everything back. */
export type Box = {
  tag: string;
  run: string;
  runDir: string;
  bundleDir: string;
  group: string;
  netnsFile: string;
  spec: OciSpec;
  cgroups: Cgroups;
  runtime: Runtime;
  create(): Promise<ProcessId>;
  /** What the probe wrote when it was done with its arguments. */
  answers<T>(): Promise<T>;
  [Symbol.asyncDispose](): Promise<void>;
};

/** `prepare` changes the image (owned by the sandbox's root afterwards) before it is mounted. */
export async function openBox(
  args: readonly string[],
  limits: Partial<RunLimits> = {},
  prepare: (imageDir: string) => void = () => {},
): Promise<Box> {
  await using undo = new AsyncDisposableStack();
  const tag = randomBytes(3).toString("hex");
  const run_ = randomBytes(6).toString("hex");
  const tagDir = join("/run/atoll", tag);
  const runDir = join(tagDir, run_);
  const linkDir = join(runDir, "link");
  const bundleDir = join(runDir, "bundle");
  const group = `atoll-${tag}/${run_}`;
  const agentFile = await buildProbe();

  for (const path of ["/run/atoll", tagDir, runDir, linkDir, join(runDir, "root"), join(runDir, "etc")]) {
    await mkdir(path, { recursive: true, mode: 0o711 });
  }
  undo.defer(() => rm(tagDir, { recursive: true }));
  await mkdir(bundleDir, { mode: 0o700 });
  for (const name of ["hosts", "hostname", "resolv.conf"])
    await writeFile(join(runDir, "etc", name), `the run's ${name}\n`);
  await writeFile(join(runDir, "ca.pem"), "certificates\n");

  const disk = await mkdtemp(join(tmpdir(), "atoll-box-"));
  undo.defer(() => rm(disk, { recursive: true }));
  for (const name of ["", "image", "upper", "work", "image/tmp", "image/etc", "image/run"]) {
    await mkdir(join(disk, name), { recursive: true });
    await chmod(join(disk, name), name === "image/tmp" ? 0o1777 : 0o755);
    if (name) await chown(join(disk, name), uidBase, uidBase);
  }
  const [lower, upper, work] = ["image", "upper", "work"].map((name) => join(disk, name)) as [string, string, string];
  prepare(lower);
  await run("chown", ["--recursive", "--no-dereference", `${uidBase}:${uidBase}`, lower]);
  await mountOverlay({ lower, upper, work, target: join(runDir, "root") });
  undo.defer(async () => void (await unmount(join(runDir, "root"), AbortSignal.timeout(10_000))));
  await mountTmpfs({ target: linkDir, sizeBytes: 65_536, inodes: 16, uid: uidBase, gid: uidBase, mode: 0o700 });
  undo.defer(async () => void (await unmount(linkDir, AbortSignal.timeout(10_000))));

  const netns = `a${tag}-0`;
  await run("ip", ["netns", "add", netns]);
  undo.defer(async () => void (await run("ip", ["netns", "del", netns])));

  const cgroups = openCgroups();
  const runtime = await openRuntime({ command: "runc", root: join(tagDir, "runc"), cgroups });
  const profile = JSON.parse(await readFile("/usr/share/containers/seccomp.json", "utf8")) as ContainersProfile;
  const spec = buildSpec({
    rootDir: join(runDir, "root"),
    linkDir,
    etcDir: join(runDir, "etc"),
    agentFile,
    agentArgs: args,
    caFile: join(runDir, "ca.pem"),
    hostname: "box",
    netnsFile: `/run/netns/${netns}`,
    cgroup: group,
    uidBase,
    limits: { vcpu: 0.5, cpuBurst: true, memoryBytes: 128 * 1024 ** 2, pids: 64, ...limits },
    host: readHostLimits(cgroups),
    seccomp: buildSeccomp(profile, capabilities, process.arch),
  });

  let created: ProcessId | undefined;
  undo.defer(async () => {
    if (created) await killAndWait(created);
    await runtime.recover(`atoll-${tag}`, new Set(), AbortSignal.timeout(10_000));
    await cgroups.remove(`atoll-${tag}`, AbortSignal.timeout(10_000));
  });
  const owned = undo.move();
  return {
    tag,
    run: run_,
    runDir,
    bundleDir,
    group,
    netnsFile: `/run/netns/${netns}`,
    spec,
    cgroups,
    runtime,
    create: async () => (created = await runtime.create(run_, bundleDir, spec)),
    async answers<T>() {
      const file = join(linkDir, "answers");
      await until("the probe has answered", () => existsSync(file));
      return JSON.parse(await readFile(file, "utf8")) as T;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Builds the static Go program once for its sources; it lies where a shifted user may execute it. */
async function buildProbe(): Promise<string> {
  const sources = import.meta.dirname;
  const hash = createHash("sha256").update(process.arch);
  for (const name of readdirSync(sources).sort()) {
    if (/\.(go|mod)$/.test(name)) hash.update(readFileSync(join(sources, name)));
  }
  const directory = join(tmpdir(), "atoll-probe");
  const file = join(directory, hash.digest("hex").slice(0, 16));
  if (existsSync(file)) return file;
  await mkdir(directory, { recursive: true });
  await chmod(directory, 0o755);
  const part = `${file}.${process.pid}`;
  // The compiler's cache lies beside the result: the second build of changed sources takes a tenth.
  const env = { PATH: "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin", HOME: directory, CGO_ENABLED: "0" };
  await run("go", ["build", "-trimpath", "-ldflags=-s -w", "-o", part, "."], { cwd: sources, env });
  await chmod(part, 0o755);
  await rename(part, file);
  return file;
}
