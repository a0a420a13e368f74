import assert from "node:assert/strict";
import { test } from "node:test";
import { openapi } from "./openapi.ts";
import { verbs } from "./verbs.ts";

type Operation = {
  operationId: string;
  parameters: { name: string; in: string; required: boolean; schema: object }[];
  requestBody?: { content: Record<string, { schema: object }> };
  responses: Record<string, { description: string; content: Record<string, { schema: object }> }>;
};

const document = JSON.parse(JSON.stringify(openapi("1.2.3"))) as {
  openapi: string;
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object>; securitySchemes: Record<string, object> };
  security: Record<string, unknown>[];
};

const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
);

test("it is OpenAPI 3.1 of this version, with the bearer token required", () => {
  assert.match(document.openapi, /^3\.1\./);
  assert.deepEqual([document.info.title, document.info.version], ["Atoll", "1.2.3"]);
  for (const scheme of Object.keys(document.security[0] ?? {})) assert(scheme in document.components.securitySchemes);
});

test("every verb is one operation, and no operation is anything else", () => {
  assert.deepEqual(operations.map(({ operation }) => operation.operationId).toSorted(), Object.keys(verbs).toSorted());
});

for (const { path, method, operation } of operations) {
  test(`${operation.operationId}: parameters, bodies and answers are as the standard wants them`, () => {
    assert.match(method, /^(get|put|post|delete|patch)$/);
    const inPath = [...path.matchAll(/\{([^}]+)\}/g)].map(([, name = ""]) => name);
    const declared = operation.parameters.filter((parameter) => parameter.in === "path");
    assert.deepEqual(declared.map(({ name }) => name).toSorted(), inPath.toSorted());
    assert(declared.every(({ required }) => required));
    const names = operation.parameters.map((parameter) => `${parameter.in} ${parameter.name}`);
    assert.equal(new Set(names).size, names.length);
    const contents = [
      operation.requestBody?.content,
      ...Object.values(operation.responses).map(({ content }) => content),
    ];
    for (const content of contents) {
      for (const { schema } of Object.values(content ?? {})) assert.equal(typeof schema, "object");
    }
    assert("200" in operation.responses && "default" in operation.responses);
  });
}

test("every reference leads to something in the document", () => {
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map(
    ([, reference]) => reference ?? "",
  );
  assert(references.length > 0);
  for (const reference of new Set(references)) {
    const found = reference
      .replace(/^#\//, "")
      .split("/")
      .reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], document);
    assert(found !== undefined, `${reference} leads nowhere`);
  }
});

test("event streams can be resumed", () => {
  const exec = operations.find(({ operation }) => operation.operationId === "exec")?.operation;
  assert(exec);
  assert(exec.parameters.some((parameter) => parameter.in === "header" && parameter.name === "Last-Event-ID"));
  assert("text/event-stream" in (exec.responses["200"]?.content ?? {}));
});
