import type { Connection } from "../sdk/connection.ts";
import { getSandbox } from "../sdk/sandbox.ts";
import { isDirectory } from "./copy-in.ts";
import { openFile } from "./copy-out.ts";
import { destinationOf, type Remote } from "./place.ts";
import { counted, type Progress } from "./progress.ts";

/** Copies from one sandbox to another, through here but without landing here. */
export async function copyAcross(connection: Connection, from: Remote, to: Remote, progress: Progress): Promise<void> {
  const [source, target] = [getSandbox(connection, from.id), getSandbox(connection, to.id)];
  const destination = destinationOf(from.path, to.path, await isDirectory(target, to.path));
  const file = await openFile(source, from.path);
  if (file) {
    progress.expect(file.size);
    await target.writeFile(destination, file.stream.pipeThrough(counted(progress)), { mode: file.mode });
  } else {
    const archive = await source.downloadArchive(from.path);
    await target.uploadArchive(destination, archive.pipeThrough(counted(progress)));
  }
}
