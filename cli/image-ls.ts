import { connectionOf } from "./daemon.ts";
import { ago, dim, print, printJson, size, table } from "./output.ts";
import type { Run } from "./table.ts";

export const run: Run<"image ls"> = async ({ values }) => {
  const images = await connectionOf(values).listImages();
  if (values.json) printJson(images);
  else if (images.length === 0) print(dim("No images. Build one: atoll image build base"));
  else {
    const rows = images.map(({ name, digest, sizeBytes, createdAt }) => [
      name,
      short(digest),
      size(sizeBytes),
      ago(createdAt),
    ]);
    print(table(["NAME", "DIGEST", "SIZE", "CREATED"], rows));
  }
  return 0;
};

/** As much of a digest as tells images apart. */
function short(digest: string): string {
  return digest.slice(0, "sha256:".length + 12);
}
