import { chmod, cp, lstat, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../linux/run.ts";
import { formatSource, withoutCredentials } from "./apt-sources.ts";
import { readPipIndex, type MachineApt } from "./bootstrap.ts";
import type { Recipe } from "./recipe.ts";

/** Where every sandbox finds its certificates; the runtime binds the bundle there. */
export const caPathInside = "/run/atoll/ca.pem";

/**
 * Turns what the package manager left into the recipe's root file system: emptied of what belonged to the build, set up for
 * the same package sources as the machine, with the recipe's own files, Node, user, directories and links.
 */
export async function furnish(recipe: Recipe, root: string, parts: { apt: MachineApt; npm?: NpmParts }): Promise<void> {
  await chmod(root, 0o755);
  for (const dir of ofTheRun) await empty(join(root, dir));
  if (recipe.kind === "system") await setUpSystem(root, parts.apt);
  if (recipe.filesDir !== undefined) await layOver(recipe.filesDir, root);
  if (parts.npm) await installNode(root, parts.npm);
  if (recipe.user) await addUser(root, recipe.user);
  for (const dir of recipe.directories) await makeDirectory(join(root, dir));
  for (const [name, target] of Object.entries(recipe.links)) await symlink(target, join(root, name));
  await trustTheRun(root);
  // They belong to the run, not to the image: the runtime binds its own over these.
  for (const name of ["hosts", "hostname", "resolv.conf"]) await place(join(root, "etc", name), "");
}

/** What npm is made of, fetched by {@link fetchNpm}. */
export type NpmParts = { archive: string; config: string };

/** Fetches npm by the machine's own npm configuration, into `dir`. */
export async function fetchNpm(
  dir: string,
  options: { env?: Record<string, string>; signal?: AbortSignal },
): Promise<NpmParts> {
  const { signal } = options;
  const settings = {
    // npm's own files (~/.npmrc) say where the registry is and what it can do.
    env: { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: homedir(), ...options.env },
    cwd: dir,
    ...(signal && { signal }),
  };
  const packed = await run("npm", ["pack", `npm@${npmMajor}`, "--silent", "--pack-destination", dir], settings);
  const config = await run("npm", ["config", "get", ...npmSettings], settings);
  return { archive: join(dir, packed.trim().split("\n").at(-1)!), config };
}

/** The npm that comes with Node 24. */
const npmMajor = 11;
/** What must be the same inside for the same registry to work; keys that can hold secrets are not among them. */
const npmSettings = ["registry", "audit", "fund", "strict-ssl"];

/** Filled anew for every run, or left from the build. */
const ofTheRun = [
  ...["dev", "proc", "sys", "run", "tmp"],
  ...["var/lib/apt/lists", "var/cache/apt", "var/cache/ldconfig", "var/cache/debconf", "var/log"],
];

async function setUpSystem(root: string, apt: MachineApt): Promise<void> {
  const aptDir = join(root, "etc/apt");
  await empty(join(aptDir, "sources.list.d"));
  await place(join(aptDir, "sources.list"), apt.sources.map((source) => `${formatSource(source)}\n`).join(""));
  for (const { signedBy } of apt.sources) {
    if (signedBy && !(await isThere(join(root, signedBy)))) await place(join(root, signedBy), await readFile(signedBy));
  }
  // mmdebstrap's copy of the fetch options may name proxies that only the host can reach; an old snapshot stays one, though.
  await rm(join(aptDir, "apt.conf.d/99mmdebstrap"), { force: true });
  const validity = apt.fetchOptions.filter((line) => line.startsWith("Acquire::Check-"));
  await place(
    join(aptDir, "apt.conf.d/90atoll"),
    [`Acquire::https::CaInfo "${caPathInside}"`, `Acquire::Languages "none"`, ...validity]
      .map((line) => `${line};\n`)
      .join(""),
  );
  const index = await readPipIndex(homedir());
  // Debian marks its Python as externally managed, which in a sandbox protects nobody and stops every "pip install".
  const pip = [
    "[global]",
    "break-system-packages = true",
    "disable-pip-version-check = true",
    "root-user-action = ignore",
  ];
  await place(
    join(root, "etc/pip.conf"),
    [...pip, ...(index ? [`index-url = ${withoutCredentials(index)}`] : [])].map((line) => `${line}\n`).join(""),
  );
  // Nobody is there to be asked.
  await run("chroot", [root, "debconf-set-selections"], { stdin: "debconf debconf/frontend select Noninteractive\n" });
}

/** Copies files of the recipe: owner root, modes 0644 or 0755, whatever the checkout's umask made of them. */
async function layOver(from: string, root: string): Promise<void> {
  for (const file of await readdir(from, { recursive: true, withFileTypes: true })) {
    const source = join(file.parentPath, file.name);
    const target = join(root, relative(from, source));
    if (file.isDirectory()) await makeDirectory(target);
    else await place(target, await readFile(source), (await lstat(source)).mode & 0o100 ? 0o755 : 0o644);
  }
}

async function installNode(root: string, { archive, config }: NpmParts): Promise<void> {
  const local = join(root, "usr/local");
  const node = dirname(fileURLToPath(import.meta.resolve(`node-linux-${process.arch}/package.json`)));
  await makeDirectory(join(local, "lib/node_modules/npm"));
  await makeDirectory(join(local, "etc"));
  await cp(join(node, "bin/node"), join(local, "bin/node"));
  await chmod(join(local, "bin/node"), 0o755);
  // With the headers, native addons build without fetching anything. 64 of their 67 MB are other machines' OpenSSL.
  const archs = join(node, "include/node/openssl/archs");
  const own = process.arch === "x64" ? "linux-x86_64" : "linux-aarch64";
  await cp(join(node, "include"), join(local, "include"), {
    recursive: true,
    filter: (path) => dirname(path) !== archs || path === join(archs, own),
  });

  // node-gyp looks here before it fetches headers; in etc/skel for the users to come.
  const version = (await run(join(local, "bin/node"), ["-p", "process.versions.node"])).trim();
  for (const home of ["root", "etc/skel"]) {
    const headers = join(root, home, ".cache/node-gyp", version);
    await place(join(headers, "installVersion"), "11\n");
    await symlink("/usr/local/include", join(headers, "include"));
  }

  const npm = join(local, "lib/node_modules/npm");
  const skipped = ["docs", "man", "tap-snapshots"].map((dir) => `--exclude=package/${dir}`);
  await run("tar", ["-xzf", archive, "-C", npm, "--strip-components=1", "--no-same-owner", ...skipped]);
  for (const name of ["npm", "npx"]) {
    await chmod(join(npm, `bin/${name}-cli.js`), 0o755);
    await symlink(`../lib/node_modules/npm/bin/${name}-cli.js`, join(local, "bin", name));
  }
  const settings = [
    ...config.trim().split("\n").map(withoutCredentialsInSetting),
    `cafile=${caPathInside}`,
    "update-notifier=false",
    // npm's own patience makes every refusal last 45 s; this still survives a hiccup, within 2 s.
    "fetch-retries=2",
    "fetch-retry-mintimeout=200",
    "fetch-retry-maxtimeout=1000",
  ];
  await place(join(local, "etc/npmrc"), settings.map((line) => `${line}\n`).join(""));
}

function withoutCredentialsInSetting(line: string): string {
  const [key = "", ...value] = line.split("=");
  return `${key.trim()}=${withoutCredentials(value.join("=").trim())}`;
}

async function addUser(root: string, { name, uid }: { name: string; uid: number }): Promise<void> {
  await run("chroot", [root, "useradd", "--create-home", "--shell", "/bin/bash", "--uid", String(uid), name]);
  // sudo keeps the certificates: without them Node and pip trust nobody behind a company's proxy.
  const kept = "NODE_EXTRA_CA_CERTS SSL_CERT_FILE GIT_SSL_CAINFO REQUESTS_CA_BUNDLE PIP_CERT ATOLL_SANDBOX";
  await place(
    join(root, "etc/sudoers.d/atoll"),
    `Defaults env_keep += "${kept}"\nDefaults !fqdn\n${name} ALL=(ALL:ALL) NOPASSWD: ALL\n`,
    0o440,
  );
}

/** Programs that read the system's bundle, and no variable, find the run's. The image's own is kept for making that. */
async function trustTheRun(root: string): Promise<void> {
  const bundle = join(root, "etc/ssl/certs/ca-certificates.crt");
  if (!(await isThere(bundle))) return;
  const kept = join(root, "usr/share/atoll/ca-certificates.crt");
  await makeDirectory(dirname(kept));
  await rename(bundle, kept);
  await symlink(caPathInside, bundle);
}

async function empty(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => []); // not every tree has every directory
  for (const name of names) await rm(join(dir, name), { recursive: true, force: true });
}

async function makeDirectory(path: string): Promise<void> {
  if (await isThere(path)) return;
  await mkdir(path, { recursive: true });
  await chmod(path, path.endsWith("/tmp") ? 0o1777 : 0o755);
}

/** Writes a file in place of what is there, a symbolic link included. */
async function place(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  await makeDirectory(dirname(path));
  await rm(path, { force: true });
  await writeFile(path, content, { mode });
  await chmod(path, mode);
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}
