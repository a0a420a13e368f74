import { parseArgs } from "node:util";
import { openImages } from "../daemon/storage/images.ts";

// setup's way to an image: node images/build.ts <name> [--store DIR] [--if-missing]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { store: { type: "string", default: "/var/lib/atoll/store" }, "if-missing": { type: "boolean" } },
});
const [name = "base"] = positionals;
const images = await openImages(values.store);
if (!(values["if-missing"] && (await images.isCurrent(name)))) {
  const started = performance.now();
  const proxies = Object.entries(process.env).filter(([key]) =>
    /^(https?|no|all)_proxy$|^NODE_EXTRA_CA_CERTS$/i.test(key),
  );
  const image = await images.build(name, {
    env: Object.fromEntries(proxies.map(([key, value]) => [key, value ?? ""])),
    onStep: (text) =>
      process.stderr.write(`  ${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${text}\n`),
  });
  process.stderr.write(
    `  image "${name}": ${image.files} files, ${Math.round(image.sizeBytes / 1e6)} MB, ${image.digest}\n`,
  );
}
