export { SandboxError } from "../protocol/errors.ts";
export type { ErrorBody, ErrorCode } from "../protocol/errors.ts";
export type { GitCheckoutResult } from "../protocol/file.ts";
export type { ImageInfo } from "../protocol/machine.ts";
export type { InstanceChoice, InstanceType } from "../protocol/options.ts";
export type { EndReason, SandboxInfo, SandboxState } from "../protocol/sandbox.ts";
export type { ExecutionContext, ExportedHandler } from "./app-types.ts";
export type { Content } from "./bytes.ts";
export type { SandboxOptions } from "./config.ts";
export { connect, type Connection } from "./connection.ts";
export type { ConnectOptions } from "./endpoint.ts";
export { asyncIterableToSSEStream, parseSSEStream, responseToAsyncIterable } from "./events.ts";
export type { ExecCallbacks, ExecEvent, ExecOptions, ExecResult, Variables } from "./exec-options.ts";
export { collectFile, streamFile } from "./file-stream.ts";
export type {
  ExistsResult,
  FileChunk,
  FileInfo,
  FileMetadata,
  FileResult,
  FileStreamEvent,
  ListFilesOptions,
  ListFilesResult,
  MoveResult,
  ReadFileResult,
  ReadFileStreamResult,
  WriteFileOptions,
} from "./file-types.ts";
export type { GitCheckoutOptions } from "./git.ts";
export type {
  LogEvent,
  LogMatch,
  LogRange,
  Process,
  ProcessLogs,
  ProcessStatus,
  StartProcessOptions,
  WaitForPortOptions,
} from "./process-types.ts";
export { followLifecycle, type FollowLifecycleOptions } from "./lifecycle.ts";
export { proxyToSandbox } from "./port-fetch.ts";
export type { ExposedPortInfo, ExposePortOptions, ExposePortResult } from "./port-types.ts";
export { getSandbox, Sandbox, type SandboxClass, type SandboxNamespace, type SandboxPlace } from "./sandbox.ts";
export type { OutboundContext, OutboundHandler, SandboxFields, SandboxStatics } from "./sandbox-fields.ts";
export type { SandboxMethods } from "./sandbox-methods.ts";
export type { Session, Session as ExecutionSession, SessionMethods, SessionOptions } from "./session-methods.ts";
export type { Terminal, TerminalOptions, TerminalOutput, TerminalViewOptions } from "./terminal.ts";
export type {
  CheckChangesOptions,
  CheckChangesResult,
  FileWatchEventType,
  FileWatchSSEEvent,
  WatchOptions,
} from "./watch.ts";
