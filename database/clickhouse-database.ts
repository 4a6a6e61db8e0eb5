/**
 * The database port over ClickHouse's HTTP protocol, by the official client; the same for the embedded engine and a server.
 *
 * Invariants: an insert is one block under one token, never asynchronous, and answered only when it is stored [G2];
 * what comes from outside is a query parameter, never a part of a statement; every failure is translated by its code
 * (error-classes.ts), and no password stands in a message. Tables are named without their database: the client says it.
 */
import { Readable } from 'node:stream'
import type { ClickHouseSettings } from '@clickhouse/client'
import { SurgetankError } from '../errors.ts'
import type { Kind } from '../model/reading.ts'
import { type ApartTarget, dropApart, openApart } from './apart.ts'
import { openClient, READ_SETTINGS, readPages, readRows, runCommand, withSignal } from './clickhouse-client.ts'
import type {
  Aggregate,
  BucketPoint,
  Database,
  DatabaseAccess,
  Fence,
  HistoryQuery,
  LatestRow,
  RawPoint,
  RowBlock,
  SourceRange,
} from './database.ts'
import { translateError } from './error-classes.ts'
import { examineServer } from './examine.ts'
import {
  type BucketRow,
  bucketStatement,
  type RawRow,
  rawStatement,
  type Statement,
  toBucketPoint,
  toRawPoint,
} from './history.ts'
import { underWay, waitForInserts } from './inserts.ts'
import { type MigrationTarget, migrate, readMigrations } from './migrate.ts'
import { openPlace } from './place.ts'
import { probe } from './probe.ts'
import { OF_RANGE, rangeParams, repairDerived } from './repair.ts'
import { READINGS_COLUMNS } from './row-binary.ts'
import { toValue, VALUE_COLUMNS } from './values.ts'

export interface DatabaseOptions {
  /** Silence of the server after which a request is given up, ms. An insert is silent until it is stored. */
  readonly requestMsMax?: number
  /** Connections at one time; further requests wait for one. */
  readonly connectionsMax?: number
  /** Nothing can be changed by it. */
  readonly readonly?: boolean
}

/** A ping that takes longer has failed. */
const PING_MS_MAX = 10_000

/** Of a migration that only looks. */
const EXAMINE_MS_MAX = 200_000

/**
 * A statement that copies is silent until it is done, and one that is given up begins again: it would never end. A connection
 * whose other side is gone is noticed much earlier, by the keep-alive of TCP.
 */
const MIGRATION_MS_MAX = 2 * 3_600_000

/** More than the rows of any batch: each is one block. */
const ROWS_OF_BLOCK = 1_048_576

/** The tables that an insert reaches through the views of the readings. */
const DERIVED_TABLES = ['state', 'readings_1m', 'readings_1h']

/**
 * Said each time, because a server, or a user's profile, may have others: servers from 26.3 on collect inserts
 * asynchronously, some older ones do not deduplicate behind a view, and an insert of several blocks can be stored in part.
 */
const INSERT_SETTINGS = {
  async_insert: 0,
  max_insert_block_size: String(ROWS_OF_BLOCK),
  insert_deduplicate: 1,
  deduplicate_blocks_in_dependent_materialized_views: 1,
  wait_end_of_query: 1,
} as const satisfies ClickHouseSettings

/** Opens no connection yet: the first call does. Throws `database_misconfigured` for an access that cannot be one. */
export function openDatabase(access: DatabaseAccess, options: DatabaseOptions = {}): Database {
  const { cluster } = access
  const { requestMsMax = 60_000, readonly = false } = options
  const client = openClient(access, {
    requestMsMax,
    connectionsMax: options.connectionsMax ?? 8,
    database: access.database,
    readonly,
  })
  const place = openPlace(access.database, statement => all('looking for the tables', statement))

  return {
    ping,
    migrate: told => outside(target => migrate(target, access, told === undefined ? {} : { told }), MIGRATION_MS_MAX),
    examine: () => outside(target => examineServer(target, access, readMigrations()), EXAMINE_MS_MAX),
    insertReadings: (block, token, signal) =>
      insert('readings', block, { ...INSERT_SETTINGS, insert_deduplication_token: token }, signal),
    catchUp,
    countReadings,
    storedReadings,
    waitForInserts: (source, signal) =>
      waitForInserts(() => all('looking for inserts', underWay(source, cluster), signal), source, signal),
    restoreReadings,
    repairDerived: (range, fence) => place.use(at => repairDerived(apartTarget(at), range, fence)),
    repairNewest: (range, fence) => place.use(at => repairDerived(apartTarget(at), range, fence, 'newest')),
    storedThrough,
    countBySource,
    countByPosition,
    latest,
    history,
    historyBuckets,
    queryStream,
    internal: place.internal,
    close: () => client.close(),
  }

  /** By a statement: the HTTP interface alone would still answer for an engine that hangs. */
  async function ping(): Promise<boolean> {
    return (await client.ping({ select: true, abort_signal: AbortSignal.timeout(PING_MS_MAX) })).success
  }

  /** By a client of its own: the database that the other one names may not exist yet. */
  async function outside<Result>(work: (target: MigrationTarget) => Promise<Result>, silenceMsMax: number) {
    await probe(access)
    const client = openClient(access, {
      requestMsMax: Math.max(requestMsMax, silenceMsMax),
      connectionsMax: 1,
      readonly,
      database: null,
    })
    try {
      const result = await work({
        command: (sql, params) => runCommand(client, sql, params),
        all: (sql, params = {}) => readRows(client, 'reading the schema', { sql, params }),
      })
      // Needed when an insert is settled: a user without the right should learn it at the start, and not after a failure.
      await readRows(client, 'looking for inserts', underWay('', cluster))
      return result
    } finally {
      await client.close()
    }
  }

  function apartTarget(internal: string): ApartTarget {
    return { internal, command, all: statement => all('repairing', statement) }
  }

  function command(sql: string, params?: Readonly<Record<string, unknown>>): Promise<void> {
    return runCommand(client, sql, params)
  }

  async function insert(
    table: string,
    block: RowBlock,
    settings: ClickHouseSettings,
    signal?: AbortSignal,
  ): Promise<void> {
    try {
      const { stream } = await client.exec({
        query: `INSERT INTO ${table} (${READINGS_COLUMNS}) FORMAT RowBinary`,
        values: Readable.from(block.bytes, { objectMode: false }),
        clickhouse_settings: settings,
        ...withSignal(signal),
      })
      // An answer that breaks off is a failure here, while the client's own draining takes it for the end.
      for await (const _ of stream);
    } catch (error) {
      throw translateError(error, `inserting ${block.rows} readings`)
    }
  }

  /** A replica shows what it has fetched so far; asked for, it fetches what the others have, or says that it cannot. */
  async function catchUp(): Promise<void> {
    if (cluster === null) return
    await place.use(async internal => {
      for (const table of ['readings', ...DERIVED_TABLES.map(name => `${internal}.${name}`)])
        await command(`SYSTEM SYNC REPLICA ${table} LIGHTWEIGHT`)
    })
  }

  async function countReadings(range: SourceRange): Promise<number> {
    const sql = `SELECT count() FROM readings WHERE ${OF_RANGE}`
    const rows = await all<[number]>('counting readings', { sql, params: rangeParams(range) })
    return rows[0]?.[0] ?? 0
  }

  function storedReadings(range: SourceRange): Promise<[position: number, index: number][]> {
    const sql = `SELECT source_position, source_index FROM readings WHERE ${OF_RANGE} ORDER BY source_position, source_index`
    return all('listing stored readings', { sql, params: rangeParams(range) })
  }

  /** A replicated table keeps a token and its part in one step, so there a count of none means only that others have them. */
  async function restoreReadings(block: RowBlock, range: SourceRange, fence: Fence): Promise<void> {
    if (cluster !== null)
      throw new SurgetankError('database_unavailable', `this replica does not show the rows of ${range.source} yet`)
    await place.use(async internal => {
      await dropApart(apartTarget(internal), range.source, fence)
      if ((await countReadings(range)) > 0) return
      const apart = await openApart(apartTarget(internal), range.source, 'readings')
      await apart.use(() => insert(apart.name, block, { ...INSERT_SETTINGS, insert_deduplicate: 0 }))
      await apart.attach(fence)
      await apart.drop()
    })
  }

  async function storedThrough({ source, from, to }: SourceRange, signal?: AbortSignal): Promise<number> {
    const sql = `SELECT if(count() = 0, {from:UInt64}, max(source_position) + 1) FROM readings
      WHERE source = {source:String} AND source_position >= {from:UInt64} AND source_position < {to:UInt64}`
    const rows = await all<[number]>('asking how far a source is stored', { sql, params: { source, from, to } }, signal)
    return rows[0]?.[0] ?? from
  }

  async function countBySource(): Promise<Map<string, number>> {
    const sql = 'SELECT source, count() FROM readings GROUP BY source'
    return new Map(await all<[string, number]>('counting readings by source', { sql, params: {} }))
  }

  async function countByPosition(range: SourceRange): Promise<Map<number, number>> {
    const sql = `SELECT source_position, count() FROM readings WHERE ${OF_RANGE} GROUP BY source_position`
    return new Map(await all<[number, number]>('counting readings by position', { sql, params: rangeParams(range) }))
  }

  async function* latest(signal?: AbortSignal): AsyncIterable<LatestRow[]> {
    const sql = `SELECT device, metric, toUnixTimestamp64Micro(ts), toUnixTimestamp64Micro(received_at), ${VALUE_COLUMNS},
      toUnixTimestamp64Micro(seen_at) FROM latest`
    for await (const page of readPages<LatestTuple>(client, 'reading the newest state', { sql, params: {} }, signal))
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
    const rows = await place.use(internal =>
      all<BucketRow>('reading history in buckets', bucketStatement(query, internal, { everyMs, aggregates }), signal),
    )
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

  function all<Row>(doing: string, statement: Statement, signal?: AbortSignal): Promise<Row[]> {
    return readRows<Row>(client, doing, statement, signal)
  }
}

type LatestTuple = [string, string, number, number, Kind, number | null, string, number]

function toLatestRow([device, metric, ts, receivedAt, kind, value, text, seenAt]: LatestTuple): LatestRow {
  return { device, metric, ts, receivedAt, value: toValue(kind, value, text), seenAt }
}
