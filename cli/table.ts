import { type SettingName, settings } from "../daemon/config.ts";

/** One option of the command line. `value` is what stands for its value in the help; without it the option is a flag. */
export type OptionShape = { value?: string; short?: string; multiple?: true; help: string };

export type VerbShape = {
  /** One line for the list of verbs. */
  summary: string;
  /** Its arguments in order; one whose name ends in "?" may be left out, in "…" may be repeated. */
  arguments: readonly string[];
  /**
   * What follows the arguments belongs to somebody else and is not parsed: "program" begins right behind the last
   * argument, "command" at the next argument that is no option of ours, or behind "--".
   */
  rest?: "program" | "command";
  options: Readonly<Record<string, OptionShape>>;
  /** What else there is to know, as paragraphs. */
  about?: string;
  examples: readonly string[];
};

/** Options that every verb has. */
export const commonOptions = {
  url: { value: "URL", help: "the daemon's address; default: ATOLL_URL, else the daemon of this machine" },
  token: { value: "TOKEN", help: "what opens it; default: ATOLL_TOKEN, else what the daemon wrote down" },
  "data-dir": { value: "DIR", help: "the daemon that has this data directory" },
  json: { help: "print JSON, for programs" },
  help: { short: "h", help: "print this" },
} as const satisfies Record<string, OptionShape>;

type Settings = typeof settings;
type DaemonOptions = {
  [Name in SettingName as Exclude<Settings[Name]["flag"] & string, "data-dir">]: { value: string; help: string };
};

/** The daemon's settings have names and help already; what stands for the value is the last word of the name. */
const daemonOptions = Object.fromEntries(
  Object.values(settings).flatMap(({ flag, help }) =>
    flag === undefined || flag in commonOptions ? [] : [[flag, { value: flag.replace(/.*-/, "").toUpperCase(), help }]],
  ),
) as DaemonOptions;

/** Every verb of the command line: parsing, types and help come from here; cli/<verb>.ts does the work. */
export const verbs = {
  up: {
    summary: "Run the daemon",
    arguments: [],
    options: {
      detach: { short: "d", help: "run it in the background, and return when it answers" },
      ...daemonOptions,
    },
    about:
      "Needs root. Sandboxes outlive the daemon: Ctrl-C or a crash leaves them running, and the next daemon takes them over. " +
      "`atoll down` puts them to sleep. Every option is also read from the environment, as ATOLL_LISTEN or ATOLL_TOKEN_FILE, " +
      "and from atoll.json in the data directory. Daemons with different data directories never touch each other.",
    examples: ["atoll up --detach", "atoll up --data-dir /srv/atoll --listen 127.0.0.1:8080"],
  },
  down: {
    summary: "Put every sandbox to sleep and end the daemon",
    arguments: [],
    options: { purge: { help: "also remove every sandbox with its disk" } },
    examples: ["atoll down", "atoll down --purge"],
  },
  run: {
    summary: "Run a TypeScript or JavaScript program against the daemon, or serve an app",
    arguments: ["program"],
    rest: "program",
    options: {
      port: { value: "PORT", help: "where an app is served; 0 takes a free one; default: 8787" },
      ip: { value: "ADDRESS", help: "the address of this machine at which an app is served; default: 127.0.0.1" },
      watch: { help: "start the program again whenever a file of its own that it has loaded changes" },
    },
    about:
      "Starts a daemon if none is up. TypeScript runs as it is, and `@atoll/sandbox` can be imported wherever the program " +
      "lies. Arguments behind the program are its own; its exit code is passed on. A program whose default export has a " +
      "fetch function is an app: it is served over HTTP until Ctrl-C; with --json its URL is printed as JSON.",
    examples: ["atoll run examples/first.ts", "atoll run agent.ts --verbose", "atoll run --watch --port 8080 app.ts"],
  },
  exec: {
    summary: "Run a command in a sandbox",
    arguments: ["id"],
    rest: "command",
    options: {
      cwd: { value: "DIR", help: "where it runs; default: the directory of the sandbox's default session" },
      env: { value: "NAME=VALUE", multiple: true, help: "an environment variable, as often as wanted" },
      user: { value: "USER", help: "as whom it runs; default: root" },
      timeout: { value: "TIME", help: 'end it after this time, such as "30s" or "5m"' },
      "no-stdin": { short: "n", help: "give it an empty standard input" },
      tty: { short: "t", help: "in a terminal, which this one shows; without --timeout, --no-stdin and --json" },
    },
    about:
      "Makes the sandbox when there is none, and wakes it when it sleeps. Standard input is passed in, output comes back as it " +
      "is, and the command's exit code is passed on. Ctrl-C stops the command; twice leaves at once. With --json the result is " +
      "printed when the command has ended.",
    examples: [
      "atoll exec box -- npm test",
      "tar c src | atoll exec box -- tar x",
      "atoll exec box -- sh -c 'echo $HOME'",
    ],
  },
  ls: {
    summary: "List sandboxes",
    arguments: [],
    options: {
      state: { value: "STATE", help: "only those that are starting, running, stopping or asleep" },
      label: { value: "NAME=VALUE", multiple: true, help: "only those with this label" },
      quiet: { short: "q", help: "print ids only" },
    },
    examples: ["atoll ls", "atoll ls --state running --label team=data"],
  },
  ps: {
    summary: "List the background processes of a sandbox, without waking it",
    arguments: ["id"],
    options: { quiet: { short: "q", help: "print ids only" } },
    about: "Those that programs start with startProcess: the ones that run, and the last 64 that have ended.",
    examples: ["atoll ps box", "atoll ps box --json"],
  },
  port: {
    summary: "Give a port of a sandbox a URL, or list those that have one",
    arguments: ["id", "port?"],
    options: {
      name: { value: "NAME", help: "a name for people" },
      "url-token": { value: "TEXT", help: "the secret in the URL, 1 to 16 of a-z, 0-9 and _; default: random" },
      auth: { value: "WHO", help: "token (who knows the URL), bearer (who sends the API's token) or public" },
      hostname: { value: "DOMAIN", help: "the URL's domain; default: the daemon's" },
      remove: { help: "take the URL back" },
    },
    about:
      "The URL stays valid over sleep and restarts; a visit wakes the sandbox and its services. Nothing is woken now. " +
      "The same port again prints the same URL.",
    examples: ["atoll port box 3000", "atoll port box", "atoll port box 3000 --remove"],
  },
  logs: {
    summary: "Print what a background process has printed",
    arguments: ["id", "process"],
    options: {
      follow: { short: "f", help: "go on with what comes, until it ends" },
      tail: { value: "LINES", short: "n", help: "only the last lines of what is there" },
    },
    about:
      "Output comes back as it is, each stream on its own; the last MiB is kept. With --json stdout, stderr and the offset " +
      "behind them are printed, and with --follow every line is a JSON value, as it comes. Ctrl-C leaves the process as it is.",
    examples: ["atoll logs box web", "atoll logs box web --follow --tail 20"],
  },
  info: {
    summary: "Tell what is known of a sandbox, without waking it",
    arguments: ["id"],
    options: {},
    examples: ["atoll info box", "atoll info box --json"],
  },
  rm: {
    summary: "Destroy sandboxes with everything they have",
    arguments: ["id…"],
    options: {},
    examples: ["atoll rm box", "atoll rm $(atoll ls -q --label team=data)"],
  },
  cp: {
    summary: "Copy files between this machine and sandboxes",
    arguments: ["from", "to"],
    options: {},
    about:
      "One side or both are in a sandbox: id:path. Files and directories are copied; an existing directory receives what is " +
      "copied under its own name, and `dir/.` means its contents. `-` is a tar stream on standard input or output. " +
      "A local name with a colon is written ./a:b.",
    examples: [
      "atoll cp report.csv box:/workspace/",
      "atoll cp box:/workspace/dist .",
      "atoll cp box:/workspace - | tar t",
    ],
  },
  shell: {
    summary: "Open a shell in a sandbox",
    arguments: ["id"],
    options: {
      terminal: { value: "NAME", help: "the terminal of this name; begun when it is not there" },
      cwd: { value: "DIR", help: "where it starts; default: the directory of the sandbox's default session" },
      user: { value: "USER", help: "as whom it runs; default: root" },
    },
    about:
      "Makes the sandbox when there is none, and wakes it when it sleeps. The shell's exit code is passed on. Ctrl-] d leaves " +
      "the terminal as it is and tells how to come back; Ctrl-] Ctrl-] types one Ctrl-]. A lost connection, or a daemon that " +
      "restarts, leaves the shell running, and the terminal comes back by itself.",
    examples: ["atoll shell box", "atoll shell box --terminal build"],
  },
  watch: {
    summary: "Tell what happens in a directory of a sandbox, as it happens",
    arguments: ["id", "path"],
    options: {
      include: { value: "PATTERN", multiple: true, help: 'only these, such as "*.ts", as often as wanted' },
      exclude: {
        value: "PATTERN",
        multiple: true,
        help: "all but these; default: .git, node_modules and .DS_Store",
      },
      flat: { help: "not what is below the directories in it" },
    },
    about:
      "Prints a line for every event until Ctrl-C, or until the directory or the sandbox's run ends. With --json every line is " +
      "a JSON value.",
    examples: ["atoll watch box /workspace", "atoll watch box src --include '*.ts' --json"],
  },
  "image ls": {
    summary: "List the images of the daemon's machine",
    arguments: [],
    options: {},
    examples: ["atoll image ls"],
  },
  "image build": {
    summary: "Build an image by its recipe",
    arguments: ["name"],
    options: {},
    examples: ["atoll image build base"],
  },
  doctor: {
    summary: "Tell what this host can do, what is missing, and the remedy",
    arguments: [],
    options: {},
    about: "Exit code 4 when something needed is missing.",
    examples: ["atoll doctor", "atoll doctor --json"],
  },
} as const satisfies Record<string, VerbShape>;

export type Verbs = typeof verbs;
export type VerbName = keyof Verbs;

type Values<Options> = {
  [Name in keyof Options]?: Options[Name] extends { multiple: true }
    ? string[]
    : Options[Name] extends { value: string }
      ? string
      : boolean;
};

/** A parsed command line. */
export type Call<Verb extends VerbName = VerbName> = {
  verb: Verb;
  values: Values<Verbs[Verb]["options"]> & Values<typeof commonOptions>;
  arguments: string[];
  /** What was not parsed, behind the arguments. */
  rest: string[];
};

/** What does a verb's work, exported by its file as `run`. Returns the exit code; what it throws is told by main.ts. */
export type Run<Verb extends VerbName> = (call: Call<Verb>) => Promise<number>;
