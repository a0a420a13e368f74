import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { SandboxError } from "../../protocol/errors.ts";

/** O_PATH of Linux, the same on x86-64 and arm64; Node does not name it. */
const openPath = 0o10000000;

/**
 * Connects to the agent's socket in a run's link directory. What lies there is hostile: sandbox root can put a symlink
 * to any socket of the host in its place. So the one name is opened without following links, must be a socket, and is
 * connected to through the open descriptor, which also lifts the 108-byte limit of socket paths. Nobody else builds a
 * socket path. Throws AGENT_UNREACHABLE.
 */
export function connectAgent(linkDir: string): Socket {
  let fd: number;
  try {
    fd = openSync(`${linkDir}/agent.sock`, openPath | constants.O_NOFOLLOW);
  } catch (cause) {
    throw unreachable((cause as Error).message, cause);
  }
  try {
    if (!fstatSync(fd).isSocket()) throw unreachable("what lies in its place is not a socket");
    // connect(2) happens within this call, so the descriptor is not needed after it
    return createConnection({ path: `/proc/self/fd/${fd}` });
  } finally {
    closeSync(fd);
  }
}

export function unreachable(why: string, cause?: unknown): SandboxError {
  return new SandboxError("AGENT_UNREACHABLE", `Cannot reach the sandbox's agent: ${why}`, {
    cause,
    suggestion: "Try again; if it stays so, stop the sandbox: its disk is kept",
  });
}
