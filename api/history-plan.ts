/** What a history request asks for, decided from its parameters alone: nothing is touched here. */
import type { Aggregate, HistoryQuery } from '../database/database.ts'
import { US_PER_MS } from '../model/time.ts'
import { parseList } from './list-parameter.ts'
import { decodeCursor } from './paging.ts'
import { invalidQuery } from './problems.ts'

/** The parameters as they came, shaped by the route's schema. */
export interface HistoryParameters {
  readonly metrics?: string | readonly string[]
  readonly from?: string
  readonly to?: string
  readonly every?: string
  readonly agg?: string
  readonly limit?: number
  readonly order?: 'asc' | 'desc'
  readonly cursor?: string
}

export interface RawPlan {
  readonly kind: 'raw'
  readonly query: HistoryQuery
  readonly after: string | null
}

export interface BucketPlan {
  readonly kind: 'buckets'
  readonly query: HistoryQuery
  readonly every: string
  readonly everyMs: number
  readonly aggregates: readonly Aggregate[]
}

export const POINTS_MAX = 10_000
const POINTS = 1_000
const RANGE_US = 3_600_000_000
const UNIT_MS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }
export const AGGREGATES: readonly Aggregate[] = ['avg', 'min', 'max', 'sum', 'count', 'last']
const AGGREGATES_BY_DEFAULT: readonly Aggregate[] = ['avg', 'min', 'max', 'count']

/** The plan; throws `invalid_request` naming the parameter that does not fit. `now` in ms since 1970 UTC. */
export function planHistory(device: string, parameters: HistoryParameters, now: number): RawPlan | BucketPlan {
  const { every, agg, limit, cursor, order = 'asc' } = parameters
  const metrics = parseMetrics(parameters.metrics)
  if (every === undefined) {
    if (agg !== undefined) throw invalidQuery('agg', 'goes with every')
    const { from, to, after } =
      cursor === undefined ? { ...planRange(parameters, now), after: null } : parseCursor(cursor)
    return { kind: 'raw', query: { device, metrics, from, to, order, limit: limit ?? POINTS }, after }
  }
  if (limit !== undefined) throw invalidQuery('limit', 'goes with raw rows; buckets come whole')
  if (cursor !== undefined) throw invalidQuery('cursor', 'goes with raw rows; buckets come whole')
  const { from, to } = planRange(parameters, now)
  const everyMs = parseEvery(every)
  const everyUs = everyMs * US_PER_MS
  const buckets = Math.ceil(to / everyUs) - Math.floor(from / everyUs)
  if (buckets * (metrics?.length ?? 1) > POINTS_MAX) {
    throw invalidQuery('every', `would make more than ${POINTS_MAX} buckets; take a longer one or a shorter range`)
  }
  const query = { device, metrics, from, to, order, limit: POINTS_MAX + 1 }
  return { kind: 'buckets', query, every, everyMs, aggregates: parseAggregates(agg) }
}

/** In µs. */
function planRange({ from, to }: HistoryParameters, now: number): { from: number; to: number } {
  const toUs = to === undefined ? now * US_PER_MS : parseTime('to', to)
  const fromUs = from === undefined ? toUs - RANGE_US : parseTime('from', from)
  if (fromUs >= toUs) throw invalidQuery('from', 'must be before to')
  return { from: fromUs, to: toUs }
}

/** The `+` of an offset that was not escaped in a URL arrives as a space. */
const RFC_3339 = /^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+\- ]\d{2}:\d{2})$/
const EPOCH_MS_MAX = Date.UTC(9999, 11, 31)
/** A count from here on is of µs: the ms of the year 9999 are fewer, the µs of 2002 are more. */
const COUNT_OF_US_MIN = 1e15

/** In µs; what lies after 2255, where no reading can, is cut to it. */
function parseTime(parameter: 'from' | 'to', text: string): number {
  const us = /^\d{1,16}$/.test(text) ? parseCount(Number(text)) : parseRfc3339(text)
  if (us >= 0 && us <= EPOCH_MS_MAX * US_PER_MS) return Math.min(us, Number.MAX_SAFE_INTEGER)
  throw invalidQuery(parameter, 'is neither RFC 3339, such as 2026-11-20T12:00:00Z, nor ms or µs since 1970')
}

function parseCount(count: number): number {
  return count < COUNT_OF_US_MIN ? count * US_PER_MS : count
}

function isTime(us: unknown): us is number {
  return Number.isSafeInteger(us) && (us as number) >= 0
}

function parseRfc3339(text: string): number {
  const [, date, time, fraction = '', zone] = RFC_3339.exec(text) ?? []
  if (date === undefined || time === undefined || zone === undefined) return Number.NaN
  // V8 makes a 2nd of March of a 30th of February.
  const midnight = new Date(`${date}T00:00:00Z`)
  if (Number.isNaN(midnight.getTime()) || !midnight.toISOString().startsWith(date)) return Number.NaN
  const seconds = Date.parse(`${date}T${time}${zone.toUpperCase().replace(' ', '+')}`)
  return seconds * US_PER_MS + Number(fraction.slice(0, 6).padEnd(6, '0'))
}

function parseEvery(every: string): number {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(every) ?? []
  const ms = Number(count) * (UNIT_MS[unit ?? ''] ?? Number.NaN)
  if (ms > 0) return ms
  throw invalidQuery('every', 'takes a whole number of s, m, h or d, such as 1m')
}

function parseMetrics(metrics: string | readonly string[] | undefined): readonly string[] | null {
  if (metrics === undefined) return null
  const names = [...new Set(parseList(metrics))].filter(name => name !== '')
  return names.length === 0 ? null : names
}

function parseAggregates(agg: string | undefined): readonly Aggregate[] {
  if (agg === undefined) return AGGREGATES_BY_DEFAULT
  const asked = [...new Set(agg.split(','))]
  const known = AGGREGATES.filter(aggregate => asked.includes(aggregate))
  if (known.length !== asked.length || known.length === 0) throw invalidQuery('agg', `takes ${AGGREGATES.join(', ')}`)
  return known
}

/** A cursor holds the range too: `now` moves between two pages, and rows at the edge would be missed or come twice. */
function parseCursor(cursor: string): { from: number; to: number; after: string } {
  const [from, to, after, unit] = decodeCursor(cursor) ?? []
  if (isTime(from) && isTime(to) && from < to && typeof after === 'string') {
    // One without a unit was given out before an upgrade, in ms.
    const usPerCount = unit === 'us' ? 1 : US_PER_MS
    return { from: from * usPerCount, to: Math.min(to * usPerCount, Number.MAX_SAFE_INTEGER), after }
  }
  throw invalidQuery('cursor', 'is not one of a page before')
}
