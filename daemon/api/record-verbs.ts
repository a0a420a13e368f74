import type { ServeTable } from "../sandbox/call.ts";
import { changeSettings } from "../sandbox/config.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";

type Verb = "listSandboxes" | "configure" | "info" | "set" | "start" | "stop" | "destroy";

/** Verbs about a sandbox as such. */
export function recordVerbs(sandboxes: Sandboxes): ServeTable<Verb> {
  return {
    async listSandboxes(_, { query }) {
      return { sandboxes: sandboxes.list(query) };
    },
    async configure(_, { params, body }) {
      await sandboxes.configure(params.sandbox, body);
      return sandboxes.info(params.sandbox);
    },
    async info(_, { params }) {
      return sandboxes.info(params.sandbox);
    },
    async set(_, { params, body }) {
      if (!sandboxes.find(params.sandbox)) await sandboxes.configure(params.sandbox, {});
      sandboxes.change(params.sandbox, (current) => changeSettings(current, body));
      return sandboxes.info(params.sandbox);
    },
    async start(run) {
      return sandboxes.info(run.record.name);
    },
    async stop(_, { params, body }) {
      return sandboxes.stop(params.sandbox, body.signal);
    },
    async destroy(_, { params }) {
      return sandboxes.destroy(params.sandbox);
    },
  };
}
