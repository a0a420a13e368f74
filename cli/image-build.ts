import { SandboxError } from "../protocol/errors.ts";
import { connectionOf } from "./daemon.ts";
import { note, print, printJson, size } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"image build"> = async ({ values, arguments: [name = ""] }) => {
  const { transport } = connectionOf(values);
  for await (const { event } of transport.events("buildImage", { params: { image: name } })) {
    switch (event.type) {
      case "step":
        note(event.text);
        break;
      case "complete": {
        const { image } = event;
        if (values.json) printJson(image);
        else print(`${image.name}: ${size(image.sizeBytes)}, ${image.digest}`);
        return 0;
      }
      case "error":
        throw SandboxError.from(event.error);
    }
  }
  throw new SandboxError("INTERNAL_ERROR", `Cannot build image "${name}": the daemon's answer had no end`);
};
