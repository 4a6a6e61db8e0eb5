/**
 * The database behind it all, as the rest of the system sees it: ClickHouse over HTTP, and the door of this folder.
 *
 * The embedded ClickHouse (chDB, a child process) and a ClickHouse server are spoken to in the same way; which one it is
 * shows only in the URL and the user. Errors are translated by their codes into ours: `database_unavailable`
 * (retry), `database_refuses_rows` (reject: a definite refusal, no row was stored), `database_misconfigured` (stop).
 */
import type { Readable } from 'node:stream'
import type { Value } from '../model/reading.ts'

export interface DatabaseAccess {
  /** Such as http://127.0.0.1:8123 */
  readonly url: string
  readonly user: string
  readonly password: string
  readonly database?: string
  /** The cluster on which tables are replicated; null for plain tables on one server. */
  readonly cluster?: string | null
  /** The authority of the server's certificate, the text of a PEM file; null for Node's own authorities. */
  readonly ca?: string | null
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

/** Rows of `telemetry.readings` in RowBinary, all of one UTC day of `received_at`, at most 500,000. */
export interface RowBlock {
  readonly rows: number
  readonly bytes: readonly Uint8Array[]
}

/** The newest reading of a metric, from the view `latest`. */
export interface LatestRow {
  readonly device: string
  readonly metric: string
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
  /** ms since 1970 UTC; `from` included, `to` not. */
  readonly from: number
  readonly to: number
  readonly order: 'asc' | 'desc'
  readonly limit: number
}

export interface RawPoint {
  readonly metric: string
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

export interface Database {
  /** Asks the engine itself, by a statement; false also when it does not answer within 10 s. */
  ping(): Promise<boolean>
  /** Brings the schema to this version; safe to repeat. */
  migrate(): Promise<void>
  /**
   * Inserts one block under one deduplication token; the same token again with the same rows stores nothing twice [G2].
   * `signal` gives up waiting; whether the rows were stored is then unknown.
   */
  insertReadings(block: RowBlock, token: string, signal?: AbortSignal): Promise<void>
  /** Rows stored of a range, in `readings`. */
  countReadings(range: SourceRange): Promise<number>
  /** Which of the rows of a range are stored, as [position, index] pairs: only asked when a count fell short. */
  storedReadings(range: SourceRange): Promise<[position: number, index: number][]>
  /**
   * Resolves when no INSERT into `telemetry.readings` runs any more, whoever sent it: one whose client died may still store
   * its rows. Rejects with `database_unavailable` after 60 s, or by `signal`.
   */
  waitForInserts(signal?: AbortSignal): Promise<void>
  /**
   * Forgets the deduplication tokens of `readings`, for a block whose token was kept while its rows were lost (a kill between
   * the token's write and the part's rename). Only while no other insert is under way.
   */
  forgetTokens(): Promise<void>
  /**
   * Fills what `state` and the rollups lack of the stored rows of a range, and only that: a table that a materialized view
   * feeds can lose its part in a kill while `readings` has the rows. Safe to repeat; only while no other insert is under
   * way. Returns how many rollup rows were lacking.
   */
  repairDerived(range: SourceRange): Promise<number>
  /** Rows of `readings` for each source: one side of the books [G7]. */
  countBySource(): Promise<Map<string, number>>
  /** Rows stored for each position of a range. */
  countByPosition(range: SourceRange): Promise<Map<number, number>>
  /** The view `latest`, streamed. */
  latest(): AsyncIterable<LatestRow[]>
  history(query: HistoryQuery, after: string | null, signal?: AbortSignal): Promise<RawPoint[]>
  historyBuckets(
    query: HistoryQuery,
    everyMs: number,
    aggregates: readonly Aggregate[],
    signal?: AbortSignal,
  ): Promise<BucketPoint[]>
  /** Any read-only query, in any of ClickHouse's formats, as a stream of bytes. */
  queryStream(sql: string, params: Readonly<Record<string, unknown>>, signal?: AbortSignal): Promise<Readable>
  close(): Promise<void>
}
