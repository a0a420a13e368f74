import type { PreviewAuth } from "../protocol/port.ts";

/** The options of `exposePort`. */
export type ExposePortOptions = {
  /**
   * The domain of the URL, such as "previews.example.com" or "localhost:8080"; names under it must lead to the daemon.
   * Default: the daemon's own setting, else localhost at the daemon's port. `https:` unless it is localhost or begins with
   * "http://".
   */
  hostname?: string | undefined;
  /** A name for people. */
  name?: string | undefined;
  /** 1 to 16 of a-z, 0-9 and _, so that the URL is known beforehand. Default: random. */
  token?: string | undefined;
  /**
   * Who may see it. "token" (default): whoever knows the URL. "bearer": who also sends the API's token as bearer header,
   * which the sandbox does not get. "public": anybody; the URL has no token and can be guessed.
   */
  auth?: PreviewAuth | undefined;
};

export type ExposePortResult = { url: string; port: number; name?: string; pathUrl?: string };

export type ExposedPortInfo = {
  url: string;
  port: number;
  name?: string;
  /** The URL by path, where the daemon has a listener for that. */
  pathUrl?: string;
  /** "active" while the sandbox runs; a visit makes it so. */
  status: "active" | "inactive";
};
