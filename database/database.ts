/**
 * The database behind it all, as the rest of the system sees it: ClickHouse over HTTP, and the door of this folder.
 *
 * The embedded ClickHouse (chDB, a child process) and a ClickHouse server are spoken to in the same way; which one it is
 * shows only in the access: a Unix socket, or a URL and a user. Errors are translated by their codes into ours: `database_unavailable`
 * (retry), `database_refuses_rows` (reject: a definite refusal, no row was stored), `database_misconfigured` (stop).
 */
import type { Readable } from 'node:stream'
import type { Value } from '../model/reading.ts'

export interface DatabaseAccess {
  /** Such as http://127.0.0.1:8123 or https://clickhouse.example:8443; without a user, a password or a path. */
  readonly url: string
  /** The Unix socket of the embedded engine, in place of the host and port of `url`; null for a server. */
  readonly socketPath: string | null
  readonly user: string
  readonly password: string
  /** Holds all tables and views: a letter or `_`, then up to 63 letters, digits and `_`. */
  readonly database: string
  /** The ClickHouse cluster whose replicas hold the tables: one shard. Null for tables that are not replicated. */
  readonly cluster: string | null
  /** Certificates that the server's is to be checked with, as PEM text. Null for those that Node trusts. */
  readonly ca: string | null
}

/** What is not set otherwise, and always of the embedded engine. */
export const ACCESS_DEFAULTS = { socketPath: null, database: 'telemetry', cluster: null, ca: null } as const

/** The name of the database for what analysts need not see, where there is one. */
export function internalOf(database: string): string {
  return `${database}_internal`
}

/**
 * A range of rows of one source, by the place in the log that is stored with each row: from (`from`, `fromIndex`) up to, not
 * including, (`to`, `toIndex`), the position first. An index left out is 0: whole chunks.
 */
export interface SourceRange {
  readonly source: string
  readonly from: number
  readonly fromIndex?: number
  readonly to: number
  readonly toIndex?: number
}

/** Asked right before a step that must not happen twice; rejects with `log_claim_lost` when the claim on the source is lost. */
export type Fence = () => Promise<void>

/** Rows of `readings` in RowBinary, all of one UTC day of `received_at`, at most 500,000. */
export interface RowBlock {
  readonly rows: number
  readonly bytes: readonly Uint8Array[]
}

/** The newest reading of a metric, from the view `latest`. */
export interface LatestRow {
  readonly device: string
  readonly metric: string
  /** All three in µs since 1970 UTC. */
  readonly ts: number
  readonly receivedAt: number
  readonly value: Value
  /** The last receipt of any reading of this metric, also of one that came late. */
  readonly seenAt: number
}

export type Aggregate = 'avg' | 'min' | 'max' | 'sum' | 'count' | 'last'

export interface HistoryQuery {
  readonly device: string
  /** Null for all metrics of the device. */
  readonly metrics: readonly string[] | null
  /** µs since 1970 UTC; `from` included, `to` not. */
  readonly from: number
  readonly to: number
  readonly order: 'asc' | 'desc'
  readonly limit: number
}

export interface RawPoint {
  readonly metric: string
  /** Both in µs since 1970 UTC. */
  readonly ts: number
  readonly receivedAt: number
  readonly value: Value
  /** Position in the log: with ts and metric a stable order for paging. */
  readonly key: string
}

export interface BucketPoint {
  readonly metric: string
  /** Start of the bucket, ms. */
  readonly bucket: number
  /** One per aggregate asked for; null where there is no number in the bucket. */
  readonly values: readonly (number | null)[]
}

/** What `migrate` starts from. */
export interface ServerFound {
  /** Of ClickHouse, such as 26.7.2.1. */
  readonly version: string
  /** The version of the schema that is there, 0 for none, and the one that `migrate` brings. */
  readonly applied: number
  readonly newest: number
  /** The database of what is not for analysts; that of the readings where there is no other. */
  readonly internal: string
  /** What is written anew before the swap, and the room for it; null where nothing is, or only little is left to do. */
  readonly rewrite: { readonly rows: number; readonly bytesNeeded: number; readonly bytesFree: number } | null
  /** Tables whose columns are of no version, a sentence each: of a database that needs no migration. */
  readonly changed: readonly string[]
}

/** How far a migration is. */
export interface MigrationStep {
  /** Versions of the schema. */
  readonly from: number
  readonly to: number
  /** What is done at the moment, such as `readings of 20260115`. */
  readonly what: string
  /** Readings that this process has written anew, of those that were left when it began; 0 where none are. */
  readonly rows: number
  readonly rowsAll: number
  /** At the pace so far; null when that is not known yet. */
  readonly secondsLeft: number | null
}

export interface Database {
  /** Asks the engine itself, by a statement; false also when it does not answer within 10 s. */
  ping(): Promise<boolean>
  /**
   * Reaches the server, and brings the schema to this version. Safe to repeat and from several processes at once; where all is
   * in place it only reads. Rejects with fate `stop` and what to set when an operator must act, with `retry` when the server
   * is away. `told` hears what is under way. A version that writes all rows anew takes its time, during which the other calls
   * that read work, and nobody may insert; it can be killed at any moment and goes on where it was.
   */
  migrate(told?: (step: MigrationStep) => void): Promise<void>
  /** All that `migrate` looks at before it changes anything; rejects as it does. The database need not exist yet. */
  examine(): Promise<ServerFound>
  /**
   * Inserts one block under one deduplication token; the same token again with the same rows stores nothing twice [G2].
   * The token begins with the source and `/`. `signal` gives up waiting; whether the rows were stored is then unknown.
   */
  insertReadings(block: RowBlock, token: string, signal?: AbortSignal): Promise<void>
  /**
   * Makes sure that what is asked next sees all that was stored before, on whichever replica: to be called before what is
   * stored is counted in order to complete it. Rejects with `database_unavailable` when that cannot be known.
   */
  catchUp(): Promise<void>
  /** Rows stored of a range, in `readings`. */
  countReadings(range: SourceRange): Promise<number>
  /** Which of the rows of a range are stored, as [position, index] pairs: only asked when a count fell short. */
  storedReadings(range: SourceRange): Promise<[position: number, index: number][]>
  /**
   * Resolves when no insert of this source runs any more, whoever sent it: one whose client died may still store its rows.
   * Inserts of other sources are not waited for. Rejects with `database_unavailable` after 60 s, or by `signal`.
   */
  waitForInserts(source: string, signal?: AbortSignal): Promise<void>
  /**
   * Stores a block whose token was kept while its rows were lost (a kill between the token's write and the part's rename), past
   * tokens and views, unless a row of its range is stored after all. The token stays known: the same insert, should it
   * still arrive, stores nothing. Rejects with `database_unavailable` where this cannot have happened: on replicated tables.
   */
  restoreReadings(block: RowBlock, range: SourceRange, fence: Fence): Promise<void>
  /**
   * Fills what `state` and the rollups lack of the stored rows of a range, and only that: a table that a materialized view
   * feeds can lose its part in a kill while `readings` has the rows. Safe to repeat, and while others insert; only while no
   * insert of this source is under way. Returns how many rollup rows were lacking.
   */
  repairDerived(range: SourceRange, fence: Fence): Promise<number>
  /** The same where the range ends with the one insert that may have been cut short, and nobody knows where that began. */
  repairNewest(range: SourceRange, fence: Fence): Promise<number>
  /**
   * The position after the last one of a range of which rows are stored; `from` when there are none, which costs little: the
   * range should end where the log does. Whole chunks: its indexes are not looked at.
   */
  storedThrough(range: SourceRange, signal?: AbortSignal): Promise<number>
  /** Rows of `readings` for each source: one side of the books [G7]. */
  countBySource(): Promise<Map<string, number>>
  /** Rows stored for each position of a range. */
  countByPosition(range: SourceRange): Promise<Map<number, number>>
  /** The view `latest`, streamed. `signal` ends the query, also one that hangs. */
  latest(signal?: AbortSignal): AsyncIterable<LatestRow[]>
  history(query: HistoryQuery, after: string | null, signal?: AbortSignal): Promise<RawPoint[]>
  historyBuckets(
    query: HistoryQuery,
    everyMs: number,
    aggregates: readonly Aggregate[],
    signal?: AbortSignal,
  ): Promise<BucketPoint[]>
  /** Any read-only query, in any of ClickHouse's formats, as a stream of bytes. */
  queryStream(sql: string, params: Readonly<Record<string, unknown>>, signal?: AbortSignal): Promise<Readable>
  /** The name of the database that holds what is not for analysts: `state`, the rollups and `by_source_from`. */
  internal(): Promise<string>
  close(): Promise<void>
}
