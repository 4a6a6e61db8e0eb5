/**
 * The SQL of history: raw readings page by page, and buckets. Pure: builds statements and reads rows, sends nothing.
 *
 * Whatever comes from outside travels as a query parameter; the text of a statement holds only words from this file.
 */
import { SurgetankError } from '../errors.ts'
import type { Kind } from '../model/reading.ts'
import type { Aggregate, BucketPoint, HistoryQuery, RawPoint } from './database.ts'
import { toValue, VALUE_COLUMNS } from './values.ts'

export interface Statement {
  readonly sql: string
  readonly params: Readonly<Record<string, unknown>>
}

/** Below it, the time of a key is one in ms, as earlier versions gave them out: no reading is from before the year 2000. */
const KEY_MICROS_MIN = 100_000_000_000_000

/** A total and stable order of raw readings: the keyset of paging. */
const KEYSET = 'ts, metric, source, source_position, source_index'

/** Raw readings of a device after the point with key `after`. Throws `invalid_request` for a key that is none. */
export function rawStatement(query: HistoryQuery, after: string | null): Statement {
  const page = after === null ? null : parseKey(after)
  const beyond = query.order === 'asc' ? '>' : '<'
  const keyset =
    page === null
      ? ''
      : `AND (${KEYSET}) ${beyond} (fromUnixTimestamp64Micro({keyTs:Int64}, 'UTC'), {keyMetric:String}, {keySource:String}, {keyPosition:UInt64}, {keyIndex:UInt32})`
  return {
    sql: `SELECT metric, toUnixTimestamp64Micro(ts), toUnixTimestamp64Micro(received_at), ${VALUE_COLUMNS}, source, source_position, source_index
      FROM readings
      WHERE ${ofDevice(query)} AND ${between('from', 'to')} ${keyset}
      ORDER BY ${KEYSET.split(', ')
        .map(column => `${column} ${query.order === 'asc' ? 'ASC' : 'DESC'}`)
        .join(', ')}
      LIMIT {limit:UInt32}`,
    params: { ...paramsOf(query), ...page },
  }
}

export type RawRow = [string, number, number, Kind, number | null, string, string, number, number]

export function toRawPoint([metric, ts, receivedAt, kind, value, text, source, position, index]: RawRow): RawPoint {
  return {
    metric,
    ts,
    receivedAt,
    value: toValue(kind, value, text),
    key: encodeKey([ts, metric, source, position, index]),
  }
}

function encodeKey(key: [ts: number, metric: string, source: string, position: number, index: number]): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url')
}

function parseKey(key: string): Record<string, string | number> {
  const [keyTs, keyMetric, keySource, keyPosition, keyIndex] = parseJsonArray(key)
  const valid = isCount(keyTs) && isCount(keyPosition) && isCount(keyIndex)
  if (!valid || typeof keyMetric !== 'string' || typeof keySource !== 'string') {
    throw new SurgetankError('invalid_request', 'The paging key was not given out by this system.')
  }
  return { keyTs: keyTs < KEY_MICROS_MIN ? keyTs * 1_000 : keyTs, keyMetric, keySource, keyPosition, keyIndex }
}

function parseJsonArray(key: string): unknown[] {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(key, 'base64url').toString())
    return Array.isArray(parsed) ? parsed : []
  } catch {
    return []
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

/** What each aggregate is, over partial sums of a bucket or over its raw readings. */
const AGGREGATES: Record<Aggregate, string> = {
  avg: 'sum(s) / sum(n)',
  min: 'min(lo)',
  max: 'max(hi)',
  sum: 'sum(s)',
  count: 'sum(n)',
  last: 'argMax(newest.4, newest)',
}

/**
 * Numeric readings of a device in buckets of `everyMs`, counted from 1970-01-01 UTC. Where the buckets are made of whole
 * hours or minutes, their inner part is read from the rollup and only the edges of [from, to) from the readings, so the
 * numbers are those of the readings and the cost is that of the rollup. `last` needs the readings. `internal` is the quoted
 * name of the database that holds the rollups.
 */
export function bucketStatement(
  query: HistoryQuery,
  internal: string,
  { everyMs, aggregates }: { readonly everyMs: number; readonly aggregates: readonly Aggregate[] },
): Statement {
  const unit = aggregates.includes('last') ? null : rollupUnit(everyMs)
  const innerFrom = unit === null ? query.to : Math.ceil(query.from / (unit * 1_000)) * unit * 1_000
  const innerTo = unit === null ? query.to : Math.floor(query.to / (unit * 1_000)) * unit * 1_000
  const order = query.order === 'asc' ? 'ASC' : 'DESC'
  const useRollup = unit !== null && innerFrom < innerTo
  const parts = useRollup
    ? [
        rollupPart(query, unit, internal),
        rawPart(query, between('from', 'innerFrom')),
        rawPart(query, between('innerTo', 'to')),
      ]
    : [rawPart(query, between('from', 'to'), aggregates.includes('last'))]
  return {
    sql: `SELECT metric, intDiv(at, {every:Int64}) * {every:Int64} AS bucket, ${aggregates.map(name => AGGREGATES[name]).join(', ')}
      FROM (${parts.join(' UNION ALL ')})
      GROUP BY metric, bucket
      ORDER BY bucket ${order}, metric ${order}
      LIMIT {limit:UInt32}`,
    params: { ...paramsOf(query), every: everyMs, ...(useRollup ? { innerFrom, innerTo } : {}) },
  }
}

export type BucketRow = [string, number, ...(number | null)[]]

export function toBucketPoint([metric, bucket, ...values]: BucketRow): BucketPoint {
  return { metric, bucket, values }
}

/** The coarsest rollup whose rows fill whole buckets, in ms; null when there is none. */
export function rollupUnit(everyMs: number): number | null {
  return everyMs % 3_600_000 === 0 ? 3_600_000 : everyMs % 60_000 === 0 ? 60_000 : null
}

function rollupPart(query: HistoryQuery, unit: number, internal: string): string {
  return `SELECT metric, toInt64(toUnixTimestamp(bucket)) * 1000 AS at, readings AS n, value_sum AS s, value_min AS lo, value_max AS hi
    FROM ${internal}.${unit === 3_600_000 ? 'readings_1h' : 'readings_1m'}
    WHERE ${ofDevice(query)}
      AND bucket >= fromUnixTimestamp64Micro({innerFrom:Int64}, 'UTC') AND bucket < fromUnixTimestamp64Micro({innerTo:Int64}, 'UTC')`
}

function rawPart(query: HistoryQuery, range: string, withNewest = false): string {
  const newest = withNewest ? ', (ts, received_at, toInt8(kind), assumeNotNull(value), value_str) AS newest' : ''
  return `SELECT metric, intDiv(toUnixTimestamp64Micro(ts), 1000) AS at, toUInt64(1) AS n, assumeNotNull(value) AS s, assumeNotNull(value) AS lo, assumeNotNull(value) AS hi${newest}
    FROM readings
    WHERE ${ofDevice(query)} AND ${range} AND kind IN ('number', 'integer', 'bool')`
}

/** Readings between two parameters, in µs; the first included. */
function between(from: string, to: string): string {
  return `ts >= fromUnixTimestamp64Micro({${from}:Int64}, 'UTC') AND ts < fromUnixTimestamp64Micro({${to}:Int64}, 'UTC')`
}

function ofDevice(query: HistoryQuery): string {
  return query.metrics === null
    ? 'device = {device:String}'
    : 'device = {device:String} AND metric IN {metrics:Array(String)}'
}

function paramsOf({ device, metrics, from, to, limit }: HistoryQuery): Record<string, unknown> {
  return { device, from, to, limit, ...(metrics === null ? {} : { metrics: [...metrics] }) }
}
