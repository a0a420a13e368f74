import { randomUUID } from "node:crypto";
import { Hono, type Context } from "hono";
import { openapi } from "../../protocol/openapi.ts";
import { terminalSocketPath } from "../../protocol/terminal.ts";
import { type VerbName, verbs, type VerbShape } from "../../protocol/verbs.ts";
import { wireHeader } from "../../protocol/version.ts";
import { SandboxError } from "../../protocol/errors.ts";
import type { Log } from "../log.ts";
import type { BytesAnswer, Call, ServeTable } from "../sandbox/call.ts";
import { processVerbs } from "../sandbox/exec.ts";
import { fileVerbs } from "../sandbox/files.ts";
import { gitVerbs } from "../sandbox/git.ts";
import { lifecycleVerbs } from "../sandbox/lifecycle.ts";
import type { Machines } from "../sandbox/machines.ts";
import type { Run } from "../sandbox/run.ts";
import { portVerbs } from "../sandbox/port.ts";
import { sessionVerbs } from "../sandbox/sessions.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { terminalVerbs } from "../sandbox/terminal.ts";
import { watchVerbs } from "../sandbox/watch.ts";
import { requireHost, requireToken, requireWire, type Tokens } from "./access.ts";
import { type Host, machineVerbs } from "./machine-verbs.ts";
import { parseInput } from "./parse.ts";
import { type Tickets, ticketVerbs } from "./ticket.ts";
import { recordVerbs } from "./record-verbs.ts";
import { bytesResponse, eventResponse, type EventSource } from "./respond.ts";

export type AppOptions = {
  machines: Machines;
  sandboxes: Sandboxes;
  tokens: Tokens;
  tickets: Tickets;
  /** Host names that the API answers to. Undefined on a unix socket, which no browser reaches. */
  names: ReadonlySet<string> | undefined;
  host: Host;
};

/** Every request has an id: in the answer's x-request-id, in the log, and in errors that are ours. */
type Env = { Variables: { requestId: string } };

/** What must be possible with a daemon of another version: to learn that it is one, and to end it. */
const forAnyVersion: ReadonlySet<VerbName> = new Set<VerbName>(["health", "down"]);

/** The API: one route for each row of the table of verbs, nothing beside it but its description. */
export function makeApp(options: AppOptions): Hono<Env> {
  const { machines, sandboxes, tokens, tickets, names, host } = options;
  const serve: ServeTable<VerbName> = {
    ...processVerbs(machines),
    ...fileVerbs,
    ...sessionVerbs,
    ...gitVerbs,
    ...portVerbs(machines, sandboxes),
    ...watchVerbs,
    ...lifecycleVerbs(machines),
    ...terminalVerbs,
    ...ticketVerbs(tickets),
    ...recordVerbs(sandboxes),
    ...machineVerbs(machines, host),
  };
  const app = new Hono<Env>();
  app.onError((error, context) => refuse(context, toSandboxError(error, machines.log, context)));
  app.notFound((context) =>
    refuse(
      context,
      new SandboxError("VALIDATION_FAILED", `Cannot ${context.req.method} ${context.req.path}: there is no such verb`, {
        suggestion: "See /v1/openapi.json",
      }),
    ),
  );
  app.use(async (context, next) => {
    const beganMs = performance.now();
    const requestId = randomUUID();
    context.set("requestId", requestId);
    await next();
    context.res.headers.set("x-request-id", requestId);
    const { method, path } = context.req;
    machines.log.debug(
      { requestId, method, path, status: context.res.status, ms: performance.now() - beganMs },
      "answered",
    );
  });
  app.use(async (context, next) => {
    if (names) requireHost(context.req.header("host"), names);
    requireToken(context.req.header("authorization"), tokens);
    await next();
  });
  app.get("/v1/openapi.json", (context) => context.json(openapi(host.version)));
  // as a WebSocket it never comes here
  app.get(terminalSocketPath, (context) => {
    const why = "it is a WebSocket, and the request does not ask for one";
    const error = new SandboxError("VALIDATION_FAILED", `Cannot open the terminal: ${why}`);
    return context.json(error.toJSON(), 426, { upgrade: "websocket", connection: "upgrade" });
  });
  for (const [name, verb] of Object.entries(verbs) as [VerbName, VerbShape][]) {
    app.on(verb.method, verb.path, (context) => answer(context, name, verb));
  }
  return app;

  async function answer(context: Context<Env>, name: VerbName, verb: VerbShape): Promise<Response> {
    const request = context.req.raw;
    const gone = new AbortController();
    const { signal } = gone;
    // not AbortSignal.any: its bookkeeping is felt in every call
    request.signal.addEventListener("abort", () => gone.abort(request.signal.reason), { once: true });
    let hold: Disposable | undefined;
    const done = (complete: boolean) => {
      hold?.[Symbol.dispose]();
      if (!complete) gone.abort(new SandboxError("ABORTED", "Cannot go on: the caller has gone"));
    };
    try {
      if (!forAnyVersion.has(name)) requireWire(context.req.header(wireHeader));
      const input = await parseInput(verb, request, context.req.param() as Record<string, string>);
      const target = await targetOf(verb, input.params as { sandbox: string }, signal);
      hold = target?.hold;
      const call: Call = {
        signal,
        letGo: () => target?.hold[Symbol.dispose](),
        lastEventId: context.req.header("last-event-id"),
        range: context.req.header("range"),
        ifRange: context.req.header("if-range"),
      };
      // the table's types tie each function to its verb; here, where any verb is any, they cannot be followed
      const run = serve[name] as (target: Run | undefined, input: unknown, call: Call) => Promise<unknown>;
      const result = await run(target?.run, input, call);
      if ("events" in verb.output)
        return eventResponse(
          result as EventSource,
          (error) => toSandboxError(error, machines.log, context, name),
          done,
        );
      if ("bytes" in verb.output) return bytesResponse(result as BytesAnswer, done);
      const response = context.json(result as object);
      done(true);
      return response;
    } catch (error) {
      done(false);
      const told = toSandboxError(error, machines.log, context, name);
      told.operation ??= name;
      return refuse(context, told);
    }
  }

  async function targetOf(verb: VerbShape, params: { sandbox: string }, signal: AbortSignal) {
    if (verb.needs === "start") return sandboxes.enter(params.sandbox, signal);
    return verb.needs === "running" ? sandboxes.peek(params.sandbox) : undefined;
  }
}

function refuse(context: Context<Env>, error: SandboxError): Response {
  const request = context.req.raw;
  // a body that nobody read is still on its way: the connection cannot carry another request
  const close = request.body !== null && (!request.bodyUsed || error.code === "PAYLOAD_TOO_LARGE");
  return context.json(error.toJSON(), error.httpStatus as 400, {
    ...(error.retryable && { "retry-after": "1" }),
    ...(close && { connection: "close" }),
  });
}

/** A bug is an exception: its stack goes to the log, the caller gets a request id to name it by. */
function toSandboxError(error: unknown, log: Log, context: Context<Env>, operation?: VerbName): SandboxError {
  if (SandboxError.is(error)) return error;
  const requestId = context.get("requestId");
  log.error(
    {
      requestId,
      operation,
      method: context.req.method,
      path: context.req.path,
      error: error instanceof Error ? error.stack : String(error),
    },
    "a request failed",
  );
  const why = error instanceof Error ? error.message : String(error);
  return new SandboxError("INTERNAL_ERROR", `Cannot finish the request: ${why}`, {
    details: { requestId },
    ...(operation && { operation }),
  });
}
