import { z } from "zod";
import { AgentSession } from "../../protocol/agent.ts";
import type { SessionInfo } from "../../protocol/session.ts";
import type { ServeTable } from "./call.ts";

/** Sessions are saved shell state; the agent keeps them on the sandbox's disk. */
export const sessionVerbs: ServeTable<"createSession" | "getSession" | "setSessionEnv" | "deleteSession"> = {
  async createSession(run, { body: { id, ...json } }) {
    return toInfo(await run.link.call(AgentSession, path(id), { method: "PUT", json }));
  },
  async getSession(run, { params }) {
    return toInfo(await run.link.call(AgentSession, path(params.session)));
  },
  async setSessionEnv(run, { params, body }) {
    return toInfo(await run.link.call(AgentSession, path(params.session), { method: "PATCH", json: body }));
  },
  async deleteSession(run, { params }) {
    return run.link.call(z.object({}), path(params.session), { method: "DELETE" });
  },
};

function path(session: string): string {
  return `/sessions/${encodeURIComponent(session)}`;
}

function toInfo({ createdAtMs, ...session }: AgentSession): SessionInfo {
  return { ...session, createdAt: createdAtMs };
}
