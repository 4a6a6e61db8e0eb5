/**
 * Reads back over the product's public doors what a run left there: rows, the newest readings and rollups over ClickHouse's
 * HTTP protocol, the newest state over the API. Read-only. Times of rows are µs.
 */
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { ACCESS_DEFAULTS, type DatabaseAccess } from '../database/database.ts'
import type { Moment, Value } from '../model/reading.ts'
import { canonicalStored, type StoredReading } from './compare.ts'

export interface StoredRow extends StoredReading {
  readonly device: string
  readonly moment: Moment
}

/** Devices from `first` to `last`, in order of their ids. */
export interface DeviceRange {
  readonly first: string
  readonly last: string
}

export interface Totals {
  readonly count: number
  readonly sum: number
  readonly min: number
  readonly max: number
}

export interface SeriesRange {
  readonly device: string
  /** ms; both included. */
  readonly from: number
  readonly to: number
}

export interface Stored {
  count(range: DeviceRange): Promise<number>
  rows(range: DeviceRange): AsyncIterable<StoredRow[]>
  /** The view `latest`: one row for each metric of a device. */
  latest(range: DeviceRange): Promise<StoredRow[]>
  /** Of the metric `value`, from the table. */
  totals(range: SeriesRange): Promise<Totals & { last: number }>
  /** The same from a rollup, whose buckets hold the range. */
  rollupTotals(view: Rollup, range: SeriesRange): Promise<Totals>
  rollupCount(view: Rollup, range: DeviceRange): Promise<number>
  /** The state document of a device; null when there is none. */
  state(device: string): Promise<StateDocument | null>
  /** Readings that are durable and not yet in ClickHouse, as the system says; null when it does not say. */
  lag(): Promise<number | null>
  /** Messages that the broker took for repetitions since it was started; null when it does not say. */
  repeated(): Promise<number | null>
  close(): Promise<void>
}

export type Rollup = 'minutely' | 'hourly'

export interface StateDocument {
  readonly metrics: Readonly<Record<string, ShownReading | undefined>>
}

/** `ts` is ISO text with three decimals, or six when it is no whole ms. */
export interface ShownReading {
  readonly value: unknown
  readonly ts: string
}

type Row = [
  device: string,
  metric: string,
  ts: string,
  receivedAt: string,
  kind: string,
  value: number | null,
  text: string,
]

/** In µs, whatever the scale of the columns. */
const ROW = `device, metric, toString(toUnixTimestamp64Micro(ts)), toString(toUnixTimestamp64Micro(received_at)),
  toString(kind), value, value_str`

const BUCKET_START: Record<Rollup, string> = { minutely: 'toStartOfMinute', hourly: 'toStartOfHour' }

/** `sql` is the URL of an engine that lets analysts in without a password, or a server and how to get in. */
export function openStored(sql: string | DatabaseAccess, httpUrl: string): Stored {
  const access = typeof sql === 'string' ? { url: sql, user: 'default', password: '', ...ACCESS_DEFAULTS } : sql
  const { url, user, password, database, ca } = access
  const client = createClient({
    url,
    username: user,
    password,
    database,
    ...(ca === null ? {} : { tls: { ca_cert: Buffer.from(ca) } }),
    request_timeout: 120_000,
    log: { level: ClickHouseLogLevel.OFF },
  })
  return { count, rows, latest, totals, rollupTotals, rollupCount, state, lag, repeated, close: () => client.close() }

  async function count(range: DeviceRange): Promise<number> {
    const [stored] = await one(`SELECT count() FROM readings WHERE ${inRange(range)}`)
    return Number(stored)
  }

  async function* rows(range: DeviceRange): AsyncIterable<StoredRow[]> {
    const query = `SELECT ${ROW} FROM readings WHERE ${inRange(range)}`
    const result = await client.query({ query, format: 'JSONCompactEachRow' })
    for await (const batch of result.stream<Row>()) yield batch.map(row => toStoredRow(row.json<Row>()))
  }

  async function latest(range: DeviceRange): Promise<StoredRow[]> {
    const query = `SELECT ${ROW} FROM latest WHERE ${inRange(range)}`
    const result = await client.query({ query, format: 'JSONCompactEachRow' })
    return (await result.json<Row>()).map(toStoredRow)
  }

  async function totals(range: SeriesRange): Promise<Totals & { last: number }> {
    const last = 'argMax(value, (ts, received_at, kind, value))'
    const columns = `count(), sumKahan(value), min(value), max(value), ${last}`
    const times = `ts >= ${time(range.from)} AND ts <= ${time(range.to)}`
    const found = await one(
      `SELECT ${columns} FROM readings WHERE device = ${quoted(range.device)} AND metric = 'value' AND ${times}`,
    )
    return { ...toTotals(found), last: Number(found[4]) }
  }

  async function rollupTotals(view: Rollup, range: SeriesRange): Promise<Totals> {
    const columns = 'sum(readings), sumKahan(avg * readings), min(min), max(max)'
    const start = BUCKET_START[view]
    const times = `bucket >= ${start}(${time(range.from)}) AND bucket <= ${time(range.to)}`
    return toTotals(
      await one(
        `SELECT ${columns} FROM ${view} WHERE device = ${quoted(range.device)} AND metric = 'value' AND ${times}`,
      ),
    )
  }

  async function rollupCount(view: Rollup, range: DeviceRange): Promise<number> {
    const [readings] = await one(`SELECT sum(readings) FROM ${view} WHERE ${inRange(range)}`)
    return Number(readings)
  }

  async function one(query: string): Promise<unknown[]> {
    const result = await client.query({ query, format: 'JSONCompactEachRow' })
    const [row] = await result.json<unknown[]>()
    return row ?? []
  }

  async function state(device: string): Promise<StateDocument | null> {
    const url = `${httpUrl}/v1/devices/${encodeURIComponent(device)}`
    const response = await fetch(url, { signal: AbortSignal.timeout(10_000) })
    if (response.status === 404) return null
    if (!response.ok) throw new Error(`${url} answers ${response.status}.`)
    return (await response.json()) as StateDocument
  }

  function lag(): Promise<number | null> {
    return metric('telemetry_lag_readings')
  }

  function repeated(): Promise<number | null> {
    return metric('telemetry_messages_repeated_total')
  }

  /** The sum over its labels. */
  async function metric(name: string): Promise<number | null> {
    const response = await fetch(`${httpUrl}/metrics`, { signal: AbortSignal.timeout(10_000) }).catch(() => null)
    const text = response?.ok === true ? await response.text() : ''
    const lines = [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))]
    return lines.length === 0 ? null : lines.reduce((sum, [, value]) => sum + Number(value), 0)
  }
}

function inRange(range: DeviceRange): string {
  return range.first === range.last
    ? `device = ${quoted(range.first)}`
    : `device >= ${quoted(range.first)} AND device <= ${quoted(range.last)}`
}

function quoted(text: string): string {
  return `'${text.replace(/['\\]/g, '\\$&')}'`
}

function time(ms: number): string {
  return `fromUnixTimestamp64Milli(${ms}, 'UTC')`
}

function toTotals(row: unknown[]): Totals {
  return { count: Number(row[0]), sum: Number(row[1]), min: Number(row[2]), max: Number(row[3]) }
}

function toStoredRow([device, metric, ts, receivedAt, kind, value, text]: Row): StoredRow {
  const time = Number(ts)
  const stored = canonicalStored(kind, value, text)
  const received = Number(receivedAt)
  const moment = { ts: time, receivedAt: received, value: toValue(stored, value, text) }
  return { device, metric, time, value: stored, receivedAt: received, moment }
}

function toValue(stored: string, value: number | null, text: string): Value {
  if (stored.startsWith('integer ')) return BigInt(text)
  if (stored.startsWith('bool ')) return value === 1
  if (stored.startsWith('string ')) return text
  return stored.startsWith('null ') ? null : Number(value)
}
