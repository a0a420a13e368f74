/** What `atoll run` tells the program's process, should the program be an app. */
export type AppOptions = {
  ip: string;
  port: number;
  /** Tell in JSON, for programs. */
  json: boolean;
  /** Another process watches over this one, and starts it again. */
  isWatched: boolean;
};

/** Taken out of the environment before the program sees it, so that processes which it starts host nothing. */
const variable = "ATOLL_RUN_APP";

export function appEnvironment(options: AppOptions): Record<string, string> {
  return { [variable]: JSON.stringify(options) };
}

export function takeAppOptions(): AppOptions | undefined {
  const { [variable]: text } = process.env;
  delete process.env[variable];
  return text === undefined ? undefined : (JSON.parse(text) as AppOptions);
}
