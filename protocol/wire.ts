import { toJSONSchema, type ZodType } from "zod";
import * as agent from "./agent.ts";
import * as live from "./agent-live.ts";
import { errorTable } from "./errors.ts";
import { frameKinds, inputKinds } from "./frame.ts";
import { verbs, type VerbShape } from "./verbs.ts";
import { wireVersion } from "./version.ts";

/** Everything that the two sides of a wire must agree on, as plain data: its hash is kept in a test. */
export function describeWire(): { api: unknown; link: unknown } {
  const api = Object.entries(verbs).map(([name, verb]: [string, VerbShape]) => ({
    name,
    method: verb.method,
    path: verb.path,
    needs: verb.needs,
    params: schema(verb.params),
    query: schema(verb.query),
    body: verb.body === undefined || verb.body === "bytes" ? (verb.body ?? null) : schema(verb.body),
    output:
      "json" in verb.output ? schema(verb.output.json) : "events" in verb.output ? schema(verb.output.events) : "bytes",
  }));
  const link = Object.entries({ ...agent, ...live }).flatMap(([name, value]) =>
    typeof value === "object" && "_zod" in value ? [{ name, schema: schema(value) }] : [],
  );
  return {
    api: { version: wireVersion, verbs: api, errors: errorTable },
    link: { version: agent.linkVersion, frameKinds, inputKinds, schemas: link },
  };
}

function schema(type: ZodType): unknown {
  return toJSONSchema(type, { io: "input", unrepresentable: "any" });
}
