import { allPrinted } from "../output.ts";
import { host } from "./host.ts";
import type { AppModule } from "./module.ts";
import type { AppOptions } from "./options.ts";

/** From now on the program's process is the app's. */
export async function run(app: AppModule, options: AppOptions): Promise<void> {
  const code = await host(app, options);
  await allPrinted();
  process.exit(code);
}
