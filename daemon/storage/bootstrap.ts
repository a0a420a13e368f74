import { spawn } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { run } from "../linux/run.ts";
import { distributionSources, formatSource, type AptSource } from "./apt-sources.ts";
import type { Recipe } from "./recipe.ts";
import { readIfThere } from "./whole-file.ts";

/** What of this machine's apt configuration a root file system is made with. */
export type MachineApt = {
  codename: string;
  sources: AptSource[];
  /** Lines of an apt.conf: how to fetch (proxies, certificates, validity); used for the build only. */
  fetchOptions: string[];
};

export async function readMachineApt(): Promise<MachineApt> {
  const release = (await readIfThere("/etc/os-release")) ?? "";
  const codename = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(release)?.[1];
  if (!codename) throw new Error("Cannot build an image: /etc/os-release names no release. Debian or Ubuntu is needed");

  const listDir = "/etc/apt/sources.list.d";
  const names = (await readdir(listDir).catch(() => [])).filter((name) => /\.(list|sources)$/.test(name)).sort();
  const paths = ["/etc/apt/sources.list", ...names.map((name) => join(listDir, name))];
  const files = await Promise.all(paths.map(async (name) => ({ name, text: (await readIfThere(name)) ?? "" })));
  const sources = distributionSources(files, codename);
  if (sources.length === 0) {
    throw new Error(
      `Cannot build an image: no apt source in ${paths.join(", ")} gives "${codename}" of this distribution`,
    );
  }
  const settings = (await run("apt-config", ["dump"])).split("\n");
  const fetchOptions = settings.filter((line) => fetchSetting.test(line)).map((line) => line.replace(/;$/, ""));
  return { codename, sources, fetchOptions };
}

const fetchSetting = /^Acquire::(https?::|Check-Valid-Until |Check-Date |Retries |ForceIPv4 )/;

export type BootstrapOptions = {
  /** Told every line of progress. */
  onStep: (text: string) => void;
  signal?: AbortSignal;
  /** Proxy variables and the like, if the machine needs them. */
  env?: Record<string, string>;
  /** A descriptor that the work keeps open as long as any of it runs: the builder's lock. */
  lockFd: number;
};

/**
 * Fills the empty directory `root` with the recipe's packages. All work runs in a pid and mount namespace that dies with
 * us, also by SIGKILL, and takes its mounts along.
 */
export async function bootstrap(
  recipe: Recipe,
  apt: MachineApt,
  root: string,
  options: BootstrapOptions,
): Promise<void> {
  const packages = Object.values(recipe.packages).flat();
  const args = [
    "--mode=root",
    "--format=directory",
    `--variant=${recipe.kind === "system" ? "apt" : "extract"}`,
    `--include=${packages.join(",")}`,
    ...apt.fetchOptions.map((line) => `--aptopt=${line}`),
    ...["doc", "man", "info", "locale"].map((dir) => `--dpkgopt=path-exclude=/usr/share/${dir}/*`),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright", // the licences demand it
    apt.codename,
    root,
    ...apt.sources.map(formatSource),
  ];
  await dyingWithUs("mmdebstrap", args, options);
}

function dyingWithUs(file: string, args: readonly string[], options: BootstrapOptions): Promise<void> {
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
  // setpriv: unshare dies with us. --kill-child: the first process of the pid namespace dies with unshare, and all with it.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "unshare", ...namespaces, file, ...args], {
    stdio: ["ignore", "pipe", "pipe", options.lockFd],
    env: { PATH: hostPath, LC_ALL: "C", ...options.env },
    ...(options.signal && { signal: options.signal, killSignal: "SIGKILL" as const }),
  });
  const lastLines: string[] = [];
  for (const stream of [child.stdout!, child.stderr!]) {
    createInterface({ input: stream }).on("line", (line) => {
      lastLines.push(line);
      if (lastLines.length > keptLines) lastLines.shift();
      const step = /^I: (.+?)(\.\.\.)?$/.exec(line)?.[1];
      if (step) options.onStep(step);
    });
  }
  return new Promise((resolve, reject) => {
    child.on("error", (error) => reject(options.signal?.aborted ? options.signal.reason : error));
    child.on("close", (exitCode, signal) => {
      if (exitCode === 0) return resolve();
      const why = exitCode === null ? `ended by ${signal}` : `exit ${exitCode}`;
      reject(new Error(`Cannot run ${file}: ${why}: ${lastLines.join("\n")}`));
    });
  });
}

/** Enough for apt's own explanation of a failure. */
const keptLines = 30;

const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** The index that the machine's pip uses, when its configuration names another than pip's own. */
export async function readPipIndex(homeDir: string): Promise<string | undefined> {
  for (const path of [join(homeDir, ".config/pip/pip.conf"), join(homeDir, ".pip/pip.conf"), "/etc/pip.conf"]) {
    const text = await readFile(path, "utf8").catch(() => "");
    const url = /^\s*index-url\s*=\s*(https?:\/\/\S+)/m.exec(text)?.[1];
    if (url) return url;
  }
  return undefined;
}
