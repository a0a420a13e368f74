import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { openCgroups } from "../../daemon/linux/cgroup.ts";
import { until } from "../../test/support/until.ts";
import type { Docker } from "./peers.ts";
import { call, environment, versionOf } from "./program.ts";

/**
 * Docker with an engine of its own in a temporary directory, without bridge and firewall rules: nothing of the machine's own
 * Docker, if any, is touched. The image "base" is our base image.
 */
export function dockerPeer(rootDir: string, stack: AsyncDisposableStack): (Docker & { version: string }) | undefined {
  const version = versionOf("dockerd");
  if (version === undefined || versionOf("docker") === undefined) return undefined;
  let engine: Promise<string> | undefined;
  const socket = () => (engine ??= startEngine(rootDir, stack));
  return {
    version,
    ready: async () => void (await socket()),
    docker: async (...args) => call("docker", "--host", await socket(), ...args),
  };
}

async function startEngine(rootDir: string, stack: AsyncDisposableStack): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "atoll-bench-docker-"));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const host = `unix://${dir}/docker.sock`;
  const group = basename(dir);
  stack.defer(() => openCgroups().remove(group, AbortSignal.timeout(10_000)));
  const log = openSync(join(dir, "log"), "a");
  const places = ["--data-root", `${dir}/data`, "--exec-root", `${dir}/exec`, "--pidfile", `${dir}/pid`];
  const child = spawn(
    "dockerd",
    ["--host", host, ...places, "--bridge=none", "--iptables=false", "--cgroup-parent", `/${group}`],
    {
      stdio: ["ignore", log, log],
      env: environment(),
    },
  );
  closeSync(log);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  stack.defer(async () => {
    child.kill("SIGTERM"); // it ends its containers and its containerd
    await ended;
  });
  await until("dockerd answers", () => call("docker", "--host", host, "version"), 30_000);
  await importRoot(rootDir, host);
  return host;
}

async function importRoot(rootDir: string, host: string): Promise<void> {
  const pack = spawn("tar", ["--create", "--owner=0", "--group=0", "--directory", rootDir, "."], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const load = spawn("docker", ["--host", host, "import", "-", "base"], {
    stdio: [pack.stdout, "ignore", "inherit"],
    env: environment(),
  });
  const code = await new Promise<number | null>((resolve) => load.once("exit", resolve));
  if (code !== 0) throw new Error(`Cannot import the base image into Docker: exit ${code}`);
}
