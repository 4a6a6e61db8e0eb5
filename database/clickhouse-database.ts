/**
 * The database port over ClickHouse's HTTP protocol, by the official client; the same for the embedded engine and a server.
 *
 * Invariants: an insert is one block under one token, never asynchronous, and answered only when it is stored [G2];
 * what comes from outside is a query parameter, never a part of a statement; every failure is translated by its code
 * (error-classes.ts), and no password stands in a message.
 */
import { Readable } from 'node:stream'
import { type ClickHouseClient, type ClickHouseSettings, createClient } from '@clickhouse/client'
import type { Kind } from '../model/reading.ts'
import type {
  Aggregate,
  BucketPoint,
  Database,
  DatabaseAccess,
  HistoryQuery,
  LatestRow,
  RawPoint,
  RowBlock,
  SourceRange,
} from './database.ts'
import { type Author, translateError } from './error-classes.ts'
import {
  type BucketRow,
  bucketStatement,
  type RawRow,
  rawStatement,
  type Statement,
  toBucketPoint,
  toRawPoint,
} from './history.ts'
import { waitForInserts } from './inserts.ts'
import { migrate, TOKENS_KEPT, tokenWindow } from './migrate.ts'
import { OF_RANGE, rangeParams, repairDerived } from './repair.ts'
import { READINGS_COLUMNS } from './row-binary.ts'
import { toValue, VALUE_COLUMNS } from './values.ts'

export interface DatabaseOptions {
  /** Silence of the server after which a request is given up, ms. An insert is silent until it is stored. */
  readonly requestMsMax?: number
  /** Connections at one time; further requests wait for one. */
  readonly connectionsMax?: number
}

/** A ping that takes longer has failed. */
const PING_MS_MAX = 10_000

const INSERT = `INSERT INTO telemetry.readings (${READINGS_COLUMNS}) FORMAT RowBinary`

/** Servers from 26.3 on collect inserts asynchronously, and some older ones do not deduplicate behind a view: said each time. */
const INSERT_SETTINGS = {
  async_insert: 0,
  insert_deduplicate: 1,
  deduplicate_blocks_in_dependent_materialized_views: 1,
  wait_end_of_query: 1,
} as const satisfies ClickHouseSettings

/** Whole numbers come unquoted, and a number that JSON has no word for comes as null. */
const READ_SETTINGS = {
  output_format_json_quote_64bit_integers: 0,
  output_format_json_quote_denormals: 0,
} as const satisfies ClickHouseSettings

/** Opens no connection yet: the first call does. */
export function openDatabase(access: DatabaseAccess, options: DatabaseOptions = {}): Database {
  const client = createClient({
    url: access.url,
    username: access.user,
    password: access.password,
    request_timeout: options.requestMsMax ?? 60_000,
    max_open_connections: options.connectionsMax ?? 8,
    compression: { request: false, response: false },
    keep_alive: { enabled: true, idle_socket_ttl: 2_500, eagerly_destroy_stale_sockets: true },
    log: { level: 127 },
  })

  return {
    ping,
    migrate: migrateSchema,
    insertReadings,
    countReadings,
    storedReadings,
    waitForInserts: signal => waitForInserts(statement => all('looking for inserts', statement, signal), signal),
    forgetTokens,
    repairDerived: range => repairDerived({ command, all: statement => all('comparing a rollup', statement) }, range),
    countBySource,
    countByPosition,
    latest,
    history,
    historyBuckets,
    queryStream,
    close: () => client.close(),
  }

  /** By a statement: the HTTP interface alone would still answer for an engine that hangs. */
  async function ping(): Promise<boolean> {
    return (await client.ping({ select: true, abort_signal: AbortSignal.timeout(PING_MS_MAX) })).success
  }

  async function migrateSchema(): Promise<void> {
    await migrate({
      command,
      scalar: async sql => ((await all<[number]>('reading the schema version', { sql, params: {} }))[0] ?? [0])[0],
    })
  }

  async function command(sql: string, params: Readonly<Record<string, unknown>> = {}): Promise<void> {
    try {
      await client.command({ query: sql, query_params: { ...params } })
    } catch (error) {
      throw translateError(error, `running ${sql.trimStart().slice(0, 60).replace(/\s+/g, ' ')}`)
    }
  }

  async function insertReadings(block: RowBlock, token: string, signal?: AbortSignal): Promise<void> {
    try {
      const { stream } = await client.exec({
        query: INSERT,
        values: Readable.from(block.bytes, { objectMode: false }),
        clickhouse_settings: { ...INSERT_SETTINGS, insert_deduplication_token: token },
        ...withSignal(signal),
      })
      // An answer that breaks off is a failure here, while the client's own draining takes it for the end.
      for await (const _ of stream);
    } catch (error) {
      throw translateError(error, `inserting ${block.rows} readings`)
    }
  }

  async function countReadings(range: SourceRange): Promise<number> {
    const sql = `SELECT count() FROM telemetry.readings WHERE ${OF_RANGE}`
    const rows = await all<[number]>('counting readings', { sql, params: rangeParams(range) })
    return rows[0]?.[0] ?? 0
  }

  function storedReadings(range: SourceRange): Promise<[position: number, index: number][]> {
    const sql = `SELECT source_position, source_index FROM telemetry.readings WHERE ${OF_RANGE} ORDER BY source_position, source_index`
    return all('listing stored readings', { sql, params: rangeParams(range) })
  }

  /** By setting the window to none and back: the engine drops the tokens that no longer fit. After a kill between, `migrate` sets it. */
  async function forgetTokens(): Promise<void> {
    for (const kept of [0, TOKENS_KEPT]) await command(tokenWindow('readings', kept))
  }

  async function countBySource(): Promise<Map<string, number>> {
    const sql = 'SELECT source, count() FROM telemetry.readings GROUP BY source'
    return new Map(await all<[string, number]>('counting readings by source', { sql, params: {} }))
  }

  async function countByPosition(range: SourceRange): Promise<Map<number, number>> {
    const sql = `SELECT source_position, count() FROM telemetry.readings WHERE ${OF_RANGE} GROUP BY source_position`
    return new Map(await all<[number, number]>('counting readings by position', { sql, params: rangeParams(range) }))
  }

  async function* latest(): AsyncIterable<LatestRow[]> {
    const sql = `SELECT device, metric, toUnixTimestamp64Milli(ts), toUnixTimestamp64Milli(received_at), ${VALUE_COLUMNS},
      toUnixTimestamp64Milli(seen_at) FROM telemetry.latest`
    for await (const page of pages<LatestTuple>('reading the newest state', { sql, params: {} }))
      yield page.map(toLatestRow)
  }

  async function history(query: HistoryQuery, after: string | null, signal?: AbortSignal): Promise<RawPoint[]> {
    const rows = await all<RawRow>('reading history', rawStatement(query, after), signal)
    return rows.map(toRawPoint)
  }

  async function historyBuckets(
    query: HistoryQuery,
    everyMs: number,
    aggregates: readonly Aggregate[],
    signal?: AbortSignal,
  ): Promise<BucketPoint[]> {
    if (aggregates.length === 0) return []
    const rows = await all<BucketRow>('reading history in buckets', bucketStatement(query, everyMs, aggregates), signal)
    return rows.map(toBucketPoint)
  }

  async function queryStream(
    sql: string,
    params: Readonly<Record<string, unknown>>,
    signal?: AbortSignal,
  ): Promise<Readable> {
    try {
      const settings = { ...READ_SETTINGS, readonly: '1' as const }
      const answer = await client.exec({
        query: sql,
        query_params: { ...params },
        clickhouse_settings: settings,
        ...withSignal(signal),
      })
      return answer.stream
    } catch (error) {
      throw translateError(error, 'running a query', 'theirs')
    }
  }

  async function all<Row>(doing: string, statement: Statement, signal?: AbortSignal): Promise<Row[]> {
    const rows: Row[] = []
    for await (const page of pages<Row>(doing, statement, signal)) rows.push(...page)
    return rows
  }

  async function* pages<Row>(doing: string, { sql, params }: Statement, signal?: AbortSignal): AsyncGenerator<Row[]> {
    try {
      yield* readPages<Row>(client, sql, params, signal)
    } catch (error) {
      throw translateError(error, doing, 'ours' satisfies Author)
    }
  }
}

/** Pages as they come from the socket. A consumer that stops early ends the query. */
async function* readPages<Row>(
  client: ClickHouseClient,
  sql: string,
  params: Readonly<Record<string, unknown>>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Row[]> {
  const answer = await client.query({
    query: sql,
    query_params: { ...params },
    format: 'JSONCompactEachRow',
    clickhouse_settings: READ_SETTINGS,
    ...withSignal(signal),
  })
  for await (const rows of answer.stream<Row>()) {
    const page = rows as { text: string }[]
    if (page.length > 0) yield JSON.parse(`[${page.map(row => row.text).join(',')}]`) as Row[]
  }
}

type LatestTuple = [string, string, number, number, Kind, number | null, string, number]

function toLatestRow([device, metric, ts, receivedAt, kind, value, text, seenAt]: LatestTuple): LatestRow {
  return { device, metric, ts, receivedAt, value: toValue(kind, value, text), seenAt }
}

function withSignal(signal: AbortSignal | undefined): { abort_signal?: AbortSignal } {
  return signal === undefined ? {} : { abort_signal: signal }
}
