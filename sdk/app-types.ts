/** What an app's `fetch` is given beside the request and `env`. */
export interface ExecutionContext {
  /** What is still to be done when the answer has left: the app does not end before, and a rejection is told. */
  waitUntil(promise: Promise<unknown>): void;
  /** Accepted, and without effect: nothing lies behind an app that a request could pass through to. */
  passThroughOnException(): void;
}

/** The default export of an app: `export default { fetch(request, env, ctx) { … } } satisfies ExportedHandler<Env>`. */
export interface ExportedHandler<Env = unknown> {
  fetch(request: Request, env: Env, ctx: ExecutionContext): Response | Promise<Response>;
}
