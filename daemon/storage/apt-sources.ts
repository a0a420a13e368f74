/** One apt source of the distribution's own archive. Never holds a user name or password. */
export type AptSource = {
  uri: string;
  suite: string;
  components: string[];
  /** Path of the key ring, when the machine names one. */
  signedBy?: string;
};

/**
 * The sources in these files (`sources.list` and one-line `.list` files, deb822 `.sources` files) that give this release
 * of the distribution itself. Other publishers' sources are left out: their keys and packages are the host's own affair, and
 * no root file system should depend on them. So are `file:` and `cdrom:` sources, which lie on the host.
 */
export function distributionSources(files: readonly { name: string; text: string }[], codename: string): AptSource[] {
  const sources = files.flatMap(({ name, text }) => (name.endsWith(".sources") ? parseDeb822(text) : parseLines(text)));
  const own = sources.flatMap((source) => {
    const components = source.components.filter((component) => ownComponents.has(component));
    const isOwn = ownSuites.some((suffix) => source.suite === codename + suffix) && components.length > 0;
    return isOwn && /^(https?|mirror\+https?):/.test(source.uri) ? [{ ...source, components }] : [];
  });
  return [...new Map(own.map((source) => [formatSource(source), source])).values()];
}

/** A line of a sources.list. */
export function formatSource({ uri, suite, components, signedBy }: AptSource): string {
  return ["deb", ...(signedBy ? [`[signed-by=${signedBy}]`] : []), uri, suite, ...components].join(" ");
}

const ownSuites = ["", "-updates", "-security", "/updates"];

/** Debian's and Ubuntu's. */
const ownComponents = new Set([
  ...["main", "contrib", "non-free", "non-free-firmware"],
  ...["restricted", "universe", "multiverse"],
]);

function parseLines(text: string): AptSource[] {
  return text.split("\n").flatMap((line) => {
    const [, options = "", uri, suite, rest] =
      /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*\S)/.exec(line) ?? [];
    if (!uri || !suite || !rest) return [];
    const signedBy = /(?:^|\s)signed-by=(\/\S+)/i.exec(options)?.[1];
    return [source(uri, suite, rest.split(/\s+/), signedBy)];
  });
}

function parseDeb822(text: string): AptSource[] {
  const withoutComments = text.replace(/^#.*\n?/gm, "");
  return withoutComments.split(/\n\s*\n/).flatMap((stanza) => {
    const field = (name: string): string[] => {
      const value = new RegExp(`^${name}:(.*(?:\\n[ \\t].*)*)`, "im").exec(stanza)?.[1] ?? "";
      return value.split(/\s+/).filter((word) => word !== "");
    };
    if (!field("Types").includes("deb") || field("Enabled")[0]?.toLowerCase() === "no") return [];
    // A key ring given in the stanza itself has no path; the distribution's own is then found by apt.
    const signedBy = field("Signed-By").find((word) => word.startsWith("/"));
    return field("URIs").flatMap((uri) =>
      field("Suites").map((suite) => source(uri, suite, field("Components"), signedBy)),
    );
  });
}

function source(uri: string, suite: string, components: string[], signedBy: string | undefined): AptSource {
  return { uri: withoutCredentials(uri), suite, components, ...(signedBy && { signedBy }) };
}

/** A root file system is read by every sandbox: no secret of the host's may enter it. */
export function withoutCredentials(uri: string): string {
  return uri.replace(/^([a-z+]+:\/\/)[^/@]*@/i, "$1");
}
