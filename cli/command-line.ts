import { asksForJson, parseCommandLine } from "./args.ts";
import { exitCodeOf } from "./exit-code.ts";
import { helpOf } from "./help.ts";
import type { Call, Run, VerbName } from "./table.ts";
import { tell } from "./tell.ts";

/** Where each verb's work is; loaded only when it is asked for, because starting is most of what a short verb costs. */
const work: { [Verb in VerbName]: () => Promise<{ run: Run<Verb> }> } = {
  up: () => import("./up.ts"),
  down: () => import("./down.ts"),
  run: () => import("./run.ts"),
  exec: () => import("./exec.ts"),
  ps: () => import("./ps.ts"),
  port: () => import("./port.ts"),
  logs: () => import("./logs.ts"),
  ls: () => import("./ls.ts"),
  info: () => import("./info.ts"),
  rm: () => import("./rm.ts"),
  cp: () => import("./cp.ts"),
  shell: () => import("./shell.ts"),
  watch: () => import("./watch.ts"),
  "image ls": () => import("./image-ls.ts"),
  "image build": () => import("./image-build.ts"),
  doctor: () => import("./doctor.ts"),
};

/** Does what a command line asks for and tells what went wrong. Gives the exit code. */
export async function follow(args: string[]): Promise<number> {
  let json = asksForJson(args);
  try {
    const request = parseCommandLine(args);
    if ("call" in request) {
      json = request.call.values.json === true;
      return await perform(request.call);
    }
    process.stdout.write(helpOf(request.help));
    return 0;
  } catch (error) {
    tell(error, json);
    return exitCodeOf(error);
  }
}

async function perform<Verb extends VerbName>(call: Call<Verb>): Promise<number> {
  const { run } = await work[call.verb]();
  return run(call);
}
