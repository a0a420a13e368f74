/** Media types by extension: what agents, web apps and data work commonly read. */
const byExtension: Record<string, string> = {
  ...types("text/plain", "txt log env gitignore ini cfg conf toml lock"),
  ...types("text/markdown", "md markdown"),
  ...types("text/html", "html htm"),
  ...types("text/css", "css scss less"),
  ...types("text/csv", "csv"),
  ...types("text/tab-separated-values", "tsv"),
  ...types("text/javascript", "js mjs cjs jsx"),
  ...types("text/x-typescript", "ts mts cts tsx"),
  ...types("text/x-python", "py"),
  ...types("text/x-shellscript", "sh bash"),
  ...types("text/x-go", "go"),
  ...types("text/x-rust", "rs"),
  ...types("text/x-java", "java"),
  ...types("text/x-c", "c h cc cpp hpp"),
  ...types("text/x-ruby", "rb"),
  ...types("application/x-httpd-php", "php"),
  ...types("application/json", "json map ipynb"),
  ...types("application/yaml", "yaml yml"),
  ...types("application/xml", "xml"),
  ...types("application/sql", "sql"),
  ...types("application/pdf", "pdf"),
  ...types("application/zip", "zip"),
  ...types("application/gzip", "gz tgz"),
  ...types("application/x-tar", "tar"),
  ...types("application/zstd", "zst"),
  ...types("application/wasm", "wasm"),
  ...types("application/vnd.sqlite3", "sqlite sqlite3 db"),
  ...types("application/vnd.apache.parquet", "parquet"),
  ...types("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
  ...types("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
  ...types("image/png", "png"),
  ...types("image/jpeg", "jpg jpeg"),
  ...types("image/gif", "gif"),
  ...types("image/webp", "webp"),
  ...types("image/avif", "avif"),
  ...types("image/svg+xml", "svg"),
  ...types("image/x-icon", "ico"),
  ...types("audio/mpeg", "mp3"),
  ...types("audio/wav", "wav"),
  ...types("video/mp4", "mp4"),
  ...types("video/webm", "webm"),
  ...types("font/woff2", "woff2"),
};

function types(type: string, extensions: string): Record<string, string> {
  return Object.fromEntries(extensions.split(" ").map((extension) => [extension, type]));
}

/** The media type of a file by its name; where that says nothing, plain text or any bytes. */
export function mimeTypeOf(path: string, isBinary: boolean): string {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const extension = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  return byExtension[extension] ?? (isBinary ? "application/octet-stream" : "text/plain");
}
