import { toJSONSchema, type ZodType } from "zod";
import { ErrorBody } from "./errors.ts";
import { verbs, type VerbShape } from "./verbs.ts";

/** The OpenAPI 3.1 document of the API, made from the table of verbs. `version` is that of the product. */
export function openapi(version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const [name, verb] of Object.entries(verbs) as [string, VerbShape][]) {
    const path = verb.path.replace(/:([a-z]+)/g, "{$1}");
    (paths[path] ??= {})[verb.method.toLowerCase()] = operation(name, verb);
  }
  return {
    openapi: "3.1.0",
    info: { title: "Atoll", version, description: "Named, isolated, persistent Linux computers for AI agents." },
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
      schemas: { Error: schema(ErrorBody, "output") },
    },
  };
}

function operation(name: string, verb: VerbShape): Record<string, unknown> {
  return {
    operationId: name,
    summary: verb.summary,
    parameters: [...parameters(verb.params, "path"), ...parameters(verb.query, "query"), ...resumption(verb)],
    ...(verb.body !== undefined && { requestBody: { required: true, content: requestContent(verb.body) } }),
    responses: {
      200: { description: verb.summary, content: responseContent(verb.output) },
      default: {
        description: "An error",
        content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
      },
    },
  };
}

function parameters(shape: VerbShape["params"], place: "path" | "query"): unknown[] {
  const { properties = {}, required = [] } = toJSONSchema(shape, { io: "input", unrepresentable: "any" });
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: place,
    required: place === "path" || required.includes(name),
    schema: property,
  }));
}

/** Event streams whose events have ids go on where a lost one ended. */
function resumption(verb: VerbShape): unknown[] {
  if (!("events" in verb.output)) return [];
  return [{ name: "Last-Event-ID", in: "header", required: false, schema: { type: "string" } }];
}

function requestContent(body: ZodType | "bytes"): Record<string, unknown> {
  if (body === "bytes") return { "application/octet-stream": { schema: { type: "string", format: "binary" } } };
  return { "application/json": { schema: schema(body, "input") } };
}

function responseContent(output: VerbShape["output"]): Record<string, unknown> {
  if ("json" in output) return { "application/json": { schema: schema(output.json, "output") } };
  if ("events" in output) return { "text/event-stream": { schema: schema(output.events, "output") } };
  return { "application/octet-stream": { schema: { type: "string", format: "binary" } } };
}

function schema(type: ZodType, io: "input" | "output"): unknown {
  const { $schema: _, ...rest } = toJSONSchema(type, { io, unrepresentable: "any" });
  return rest;
}
