import type { DatabaseSync } from "node:sqlite";
import type { PreviewAuth } from "../../protocol/port.ts";
import { labelOf } from "./preview-name.ts";

/** A port that has a URL. */
export type PortRow = {
  readonly sandboxKey: string;
  readonly port: number;
  /** The sandbox's part of the label. */
  readonly slug: string;
  readonly token: string;
  readonly auth: PreviewAuth;
  readonly name?: string;
  /** What the caller wants after the label. */
  readonly domain?: string;
  /** Aborts when the URL is taken back: whoever is connected through it is cut. */
  readonly gone: AbortController;
};

/** The rows of exposed ports, in memory too: every visit asks. Every change is one transaction, done when the method returns. */
export class PortTable {
  readonly #db: DatabaseSync;
  readonly #bySandbox = new Map<string, Map<number, PortRow>>();
  readonly #byLabel = new Map<string, PortRow>();

  constructor(db: DatabaseSync) {
    this.#db = db;
    for (const row of db.prepare("SELECT * FROM ports ORDER BY port").all()) this.#keep(toRow(row));
  }

  /** Those of a sandbox, by number. */
  of(sandboxKey: string): PortRow[] {
    return [...(this.#bySandbox.get(sandboxKey)?.values() ?? [])].sort((a, b) => a.port - b.port);
  }

  find(sandboxKey: string, port: number): PortRow | undefined {
    return this.#bySandbox.get(sandboxKey)?.get(port);
  }

  /** The row of this label, which holds the token: how long that takes tells nothing of it, because a hash is looked for. */
  labelled(label: string): PortRow | undefined {
    return this.#byLabel.get(label);
  }

  put(row: Omit<PortRow, "gone">): PortRow {
    this.#db
      .prepare(
        `INSERT INTO ports (sandbox_key, port, slug, token, auth, name, domain) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET slug = excluded.slug, token = excluded.token, auth = excluded.auth,
           name = excluded.name, domain = excluded.domain`,
      )
      .run(row.sandboxKey, row.port, row.slug, row.token, row.auth, row.name ?? null, row.domain ?? null);
    const former = this.find(row.sandboxKey, row.port);
    if (former) this.#drop(former);
    return this.#keep({ ...row, gone: former?.gone ?? new AbortController() });
  }

  /** Whether there was one. Cuts who is connected through it. */
  remove(sandboxKey: string, port: number): boolean {
    const row = this.find(sandboxKey, port);
    if (!row) return false;
    this.#db.prepare("DELETE FROM ports WHERE sandbox_key = ? AND port = ?").run(sandboxKey, port);
    this.#drop(row);
    row.gone.abort();
    return true;
  }

  /** The sandbox is destroyed; its rows went with it. */
  forget(sandboxKey: string): void {
    for (const row of this.of(sandboxKey)) {
      this.#drop(row);
      row.gone.abort();
    }
  }

  #keep(row: PortRow): PortRow {
    const ports = this.#bySandbox.get(row.sandboxKey) ?? new Map<number, PortRow>();
    this.#bySandbox.set(row.sandboxKey, ports.set(row.port, row));
    this.#byLabel.set(labelOf(row), row);
    return row;
  }

  #drop(row: PortRow): void {
    const ports = this.#bySandbox.get(row.sandboxKey);
    ports?.delete(row.port);
    if (ports?.size === 0) this.#bySandbox.delete(row.sandboxKey);
    const label = labelOf(row);
    if (this.#byLabel.get(label) === row) this.#byLabel.delete(label);
  }
}

function toRow(row: Record<string, unknown>): PortRow {
  return {
    sandboxKey: row["sandbox_key"] as string,
    port: row["port"] as number,
    slug: row["slug"] as string,
    token: row["token"] as string,
    auth: row["auth"] as PreviewAuth,
    ...(row["name"] !== null && { name: row["name"] as string }),
    ...(row["domain"] !== null && { domain: row["domain"] as string }),
    gone: new AbortController(),
  };
}
