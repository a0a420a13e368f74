import { host } from "./host.ts";
import type { AppModule } from "./module.ts";
import type { AppOptions } from "./options.ts";

/** From now on the program's process is the app's. */
export async function run(app: AppModule, options: AppOptions): Promise<void> {
  process.exit(await host(app, options));
}
