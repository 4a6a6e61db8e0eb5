/**
 * `/v1/devices/{id}/history`: stored readings from ClickHouse, raw or in buckets of time.
 *
 * Each answer says how far it is complete: `persisted_through`. It is read before the query, from the most forward to the
 * most settled: the clock, then what is on its way into the log, then the log's books. A message may move on between two
 * of these looks, but never past all three.
 */
import type { IncomingMessage } from 'node:http'
import { Type } from 'typebox'
import type { BucketPoint, RawPoint } from '../database/database.ts'
import { LIMITS } from '../model/limits.ts'
import { timeText, US_PER_MS } from '../model/time.ts'
import type { ApiOptions, Server } from './api.ts'
import { unknownDevice } from './devices.ts'
import { type BucketPlan, POINTS_MAX, planHistory, type RawPlan } from './history-plan.ts'
import { listParameter } from './list-parameter.ts'
import { encodeCursor, linkNext } from './paging.ts'
import { ApiProblem, invalidQuery } from './problems.ts'
import { answers, DeviceId, Next, PersistedThrough, problemAnswer, Time, Value } from './schemas.ts'
import { jsonValue } from './state-document.ts'
import { openTurnstile } from './turnstile.ts'

const QUERIES_MAX = 8
const QUERY_MS_MAX = 30_000

const When = (description: string) =>
  Type.String({ maxLength: 40, description: `RFC 3339, or ms or µs since 1970. ${description}` })

const Head = { device: DeviceId, from: Time, to: Time, persisted_through: PersistedThrough }
const RawHistory = Type.Object({
  ...Head,
  items: Type.Array(Type.Object({ metric: Type.String(), ts: Time, received_at: Time, value: Value })),
  next: Next,
})
const BucketHistory = Type.Object({
  ...Head,
  every: Type.String(),
  series: Type.Array(
    Type.Object({
      metric: Type.String(),
      agg: Type.String(),
      points: Type.Array(Type.Unsafe<[number, number | null]>({ type: 'array', minItems: 2, maxItems: 2 }), {
        description: '[start of the bucket in ms since 1970, number or null]',
      }),
    }),
  ),
  next: Type.Null(),
})

const SCHEMA = {
  tags: ['history'],
  summary: 'Stored readings of a device, by their time',
  description:
    'Without `every`: raw rows, in pages. With it: aggregates of buckets of that length, whole. Readings that are received ' +
    'and not yet stored are missing; `persisted_through` says from when.',
  params: Type.Object({ id: DeviceId }),
  querystring: Type.Object(
    {
      metrics: Type.Optional(
        listParameter(
          { valuesMax: LIMITS.metricsPerDeviceMax, charsMax: LIMITS.metricNameCharsMax },
          'Names of metrics; all when left out.',
        ),
      ),
      from: Type.Optional(When('Included. An hour before `to` when left out.')),
      to: Type.Optional(When('Not included. Now when left out.')),
      every: Type.Optional(Type.String({ maxLength: 8, description: 'Such as 10s, 1m, 1h or 1d.' })),
      agg: Type.Optional(
        Type.String({
          maxLength: 64,
          description: 'Of avg, min, max, sum, count, last; avg,min,max,count when left out.',
        }),
      ),
      limit: Type.Optional(
        Type.Integer({ minimum: 1, maximum: POINTS_MAX, description: 'Raw rows; 1000 when left out.' }),
      ),
      order: Type.Optional(Type.Enum(['asc', 'desc'], { default: 'asc' })),
      cursor: Type.Optional(
        Type.String({
          maxLength: 1_024,
          description: '`next` of the page before; the range is that of the first page.',
        }),
      ),
    },
    { additionalProperties: false },
  ),
  response: answers({
    200: Type.Union([RawHistory, BucketHistory]),
    400: problemAnswer('A parameter does not fit.'),
    404: problemAnswer('No reading of this device was ever received.'),
    503: problemAnswer(
      'ClickHouse is away, or too many queries are under way. The newest state is served all the same.',
    ),
  }),
}

export function addHistoryRoute(server: Server, options: ApiOptions): void {
  const { space, database, clock } = options
  const turnstile = openTurnstile(QUERIES_MAX)

  server.get('/v1/devices/:id/history', { schema: SCHEMA }, async (request, reply) => {
    const { id } = request.params
    const plan = planHistory(id, request.query, clock())
    const answer = await turnstile(async () => {
      const through = await persistedThrough(options)
      return abortable(request.raw, signal =>
        plan.kind === 'raw' ? readRaw(plan, through, signal) : readBuckets(plan, through, signal),
      )
    })
    if (answer.empty && (await space.get(id)) === null) throw unknownDevice(id, space.warm)
    linkNext(request, reply, answer.next)
    return reply.type('application/json').send(answer.text)
  })

  async function readRaw(plan: RawPlan, through: number, signal: AbortSignal): Promise<HistoryAnswer> {
    const points = await database.history(plan.query, plan.after, signal)
    const last = points.at(-1)
    const full = last !== undefined && points.length >= plan.query.limit
    const next = full ? encodeCursor([plan.query.from, plan.query.to, last.key, 'us']) : null
    const text = `${head(plan, through)},"items":[${points.map(rawItem).join(',')}],"next":${JSON.stringify(next)}}`
    // A device that has rows before this page is known, whatever the page holds.
    return { text, next, empty: points.length === 0 && plan.after === null }
  }

  async function readBuckets(plan: BucketPlan, through: number, signal: AbortSignal): Promise<HistoryAnswer> {
    const points = await database.historyBuckets(plan.query, plan.everyMs, plan.aggregates, signal)
    if (points.length > POINTS_MAX) {
      throw invalidQuery('every', `would make more than ${POINTS_MAX} buckets; name metrics, or take a longer one`)
    }
    const series = JSON.stringify(seriesOf(points, plan))
    const text = `${head(plan, through)},"every":${JSON.stringify(plan.every)},"series":${series},"next":null}`
    return { text, next: null, empty: points.length === 0 }
  }
}

interface HistoryAnswer {
  readonly text: string
  readonly next: string | null
  readonly empty: boolean
}

async function persistedThrough({ clock, oldestHeldAt, view }: ApiOptions): Promise<number> {
  const now = clock()
  const held = oldestHeldAt?.() ?? now
  const { oldestUnwrittenAt } = await view.lag()
  return Math.min(now, held, oldestUnwrittenAt ?? now)
}

/** Runs a query that ends when the client is gone, or after its time. */
async function abortable<Result>(
  request: IncomingMessage,
  query: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const aborter = new AbortController()
  const abort = () => aborter.abort()
  let late = false
  const timer = setTimeout(() => {
    late = true
    abort()
  }, QUERY_MS_MAX)
  request.socket.once('close', abort)
  try {
    return await query(aborter.signal)
  } catch (error) {
    if (!late) throw error
    throw new ApiProblem('database_unavailable', `No answer within ${QUERY_MS_MAX / 1000} s; ask for a shorter range.`)
  } finally {
    clearTimeout(timer)
    request.socket.off('close', abort)
  }
}

function head({ query: { device, from, to } }: RawPlan | BucketPlan, through: number): string {
  const range = `"from":"${timeText(from)}","to":"${timeText(to)}"`
  return `{"device":${JSON.stringify(device)},${range},"persisted_through":"${timeText(through * US_PER_MS)}"`
}

function rawItem({ metric, ts, receivedAt, value }: RawPoint): string {
  const times = `"ts":"${timeText(ts)}","received_at":"${timeText(receivedAt)}"`
  return `{"metric":${JSON.stringify(metric)},${times},"value":${jsonValue(value)}}`
}

interface Series {
  readonly metric: string
  readonly agg: string
  readonly points: [number, number | null][]
}

function seriesOf(points: readonly BucketPoint[], { aggregates }: BucketPlan): Series[] {
  const byMetric = new Map<string, Series[]>()
  for (const { metric, bucket, values } of points) {
    const series = byMetric.get(metric) ?? aggregates.map(agg => ({ metric, agg, points: [] }))
    byMetric.set(metric, series)
    for (const [at, one] of series.entries()) one.points.push([bucket, values[at] ?? null])
  }
  return [...byMetric.values()].flat()
}
