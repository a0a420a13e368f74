import { z } from "zod";

const invalidPort = { params: { code: "INVALID_PORT" } };

/** Ports that can be previewed. Those below 1024 belong to the system of many images; nothing that is developed listens there. */
export const PreviewPort = z.number().refine((port) => Number.isInteger(port) && port >= 1024 && port <= 65_535, {
  message: "a port that can be exposed is a whole number from 1024 to 65535",
  ...invalidPort,
});

/** A port in a path. */
export const PortInPath = z
  .string()
  .refine((text) => /^[1-9]\d{0,4}$/.test(text) && Number(text) <= 65_535, {
    message: "a port is a whole number from 1 to 65535",
    ...invalidPort,
  })
  .transform(Number);

/** 16 characters: with a port and a slug of 40 they are the longest label that DNS allows. */
export const PortToken = z.string().regex(/^[a-z0-9_]{1,16}$/, "a token is 1 to 16 of a-z, 0-9 and _");

/**
 * Who may see a preview. "token": whoever knows its URL. "bearer": who also sends the API's own bearer token, which never
 * reaches the sandbox. "public": anybody; the URL can be guessed.
 */
export const PreviewAuth = z.enum(["token", "bearer", "public"]);
export type PreviewAuth = z.infer<typeof PreviewAuth>;

/** `DOMAIN`, `DOMAIN:PORT`, with or without `http://` or `https://` before it. */
export const PreviewDomain = z
  .string()
  .max(255)
  .regex(
    /^(https?:\/\/)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:\d{1,5})?$/i,
    "a domain is such as previews.example.com or localhost:8080",
  );

export const ExposePortBody = z.strictObject({
  port: PreviewPort,
  name: z.string().max(255).optional(),
  /** The domain of the URL. */
  hostname: PreviewDomain.optional(),
  /** Absent: random. */
  token: PortToken.optional(),
  auth: PreviewAuth.optional(),
});
export type ExposePortBody = z.infer<typeof ExposePortBody>;

export const ExposedPort = z.object({
  port: z.number().int(),
  name: z.string().optional(),
  url: z.string(),
  /** By path, on a listener of its own, where the daemon has one. */
  pathUrl: z.string().optional(),
  auth: PreviewAuth,
  /** "active" while the sandbox runs; a visit makes it so. */
  status: z.enum(["active", "inactive"]),
});
export type ExposedPort = z.infer<typeof ExposedPort>;

/** The parts of a preview's label: the first part of its host name, or what stands behind /p/ in its path. */
export type PreviewLabel = { port: number; rest: string };

/** Reads `PORT-SLUG-TOKEN` or, of a public one, `PORT-SLUG`; undefined when it is neither. Letters' case does not matter. */
export function parsePreviewLabel(label: string): PreviewLabel | undefined {
  const match = /^([1-9]\d{3,4})-([a-z0-9][a-z0-9_-]*)$/i.exec(label);
  const port = Number(match?.[1]);
  if (!match?.[2] || port < 1024 || port > 65_535 || label.length > 63) return undefined;
  return { port, rest: match[2].toLowerCase() };
}

/** The label of the host `name` (without a port), where it is a preview's. */
export function previewLabelOf(name: string): string | undefined {
  const dot = name.indexOf(".");
  const label = dot > 0 ? name.slice(0, dot) : "";
  return dot < name.length - 1 && parsePreviewLabel(label) ? label : undefined;
}
