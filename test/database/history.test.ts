/** History: pages that neither repeat nor miss a reading, and buckets that equal the readings. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Aggregate, BucketPoint, HistoryQuery, RawPoint } from '../../database/database.ts'
import { rollupUnit } from '../../database/history.ts'
import { block, type Fixture, type GivenRow, openFixture, rows } from './database-fixture.ts'

let on: Fixture
const MINUTE = 60_000
const HOUR = 60 * MINUTE
/** µs, as all times of readings here. */
const MS = 1_000
const START = Date.UTC(2026, 2, 1, 9, 17, 23, 456) * MS + 789
const RECEIVED = START + 30 * HOUR * MS

/** Two numeric metrics over 30 hours, every 47 s, some at the same time, and one of text. */
const READINGS: GivenRow[] = Array.from({ length: 2400 }, (_, i): GivenRow => {
  const sentTs = START + Math.floor(i / 2) * 47_000 * MS
  const common = { device: 'press', receivedAt: RECEIVED, sentTs }
  if (i % 50 === 0) return { ...common, metric: 'note', value: `n${i}` }
  if (i % 75 === 0) return { ...common, metric: 'speed', value: BigInt(2 ** 53) + BigInt(2 * i) }
  return {
    ...common,
    metric: i % 2 === 0 ? 'speed' : 'heat',
    value: i % 33 === 0 ? i % 2 === 0 : Math.round(1e6 * Math.sin(i)) / 1e3,
  }
})

beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
  await on.database.insertReadings(block(READINGS, 'log', 1), 'press')
  await on.database.insertReadings(block([{ device: 'other', value: 1 }], 'log', 2), 'other')
})
afterAll(() => on.close())

const ALL: HistoryQuery = { device: 'press', metrics: null, from: START, to: RECEIVED, order: 'asc', limit: 100_000 }

async function pages(query: HistoryQuery): Promise<RawPoint[]> {
  const points: RawPoint[] = []
  let after: string | null = null
  do {
    const page: RawPoint[] = await on.database.history(query, after)
    points.push(...page)
    after = page.at(-1)?.key ?? null
  } while (after !== null)
  return points
}

describe('raw readings', () => {
  test('page by page are the whole, once each, in both directions', async () => {
    const whole = await on.database.history(ALL, null)
    expect(whole).toHaveLength(2400)
    expect(await pages({ ...ALL, limit: 371 })).toEqual(whole)
    expect(await pages({ ...ALL, limit: 371, order: 'desc' })).toEqual([...whole].reverse())
  })

  test('of some metrics, from a time on and before another', async () => {
    const from = START + 47_000 * MS
    const points = await on.database.history(
      { ...ALL, metrics: ['heat', 'note'], from, to: START + 10 * 47_000 * MS },
      null,
    )
    expect(points.every(({ metric, ts }) => metric !== 'speed' && ts >= from && ts < START + 10 * 47_000 * MS)).toBe(
      true,
    )
    expect(points).toHaveLength(9)
    expect(await on.database.history({ ...ALL, metrics: [] }, null)).toEqual([])
  })

  test('go on after a key that an earlier version gave out, in ms', async () => {
    const [first] = await on.database.history({ ...ALL, limit: 1 }, null)
    const parts = JSON.parse(Buffer.from(first?.key ?? '', 'base64url').toString()) as unknown[]
    const millis = Buffer.from(JSON.stringify([Math.floor(START / MS) + 1, ...parts.slice(1)])).toString('base64url')
    expect(await on.database.history(ALL, millis)).toHaveLength(2398)
  })

  test('read only the parts that have readings of the time asked for', async () => {
    for (const day of [1, 2, 3]) {
      const receivedAt = RECEIVED + day * 24 * HOUR * MS
      const given = [{ device: 'pruned', value: day, receivedAt, sentTs: receivedAt - 30 * MS }]
      await on.database.insertReadings(block(given, 'pruned', day), `pruned/${day}-${day + 1}`)
    }
    const [from, to] = [RECEIVED + 48 * HOUR * MS - HOUR * MS, RECEIVED + 48 * HOUR * MS]
    const micros = (time: number) => `fromUnixTimestamp64Micro(${time}, 'UTC')`
    for (const column of ['ts', 'received_at']) {
      const explained = await rows(
        on.analyst,
        `EXPLAIN indexes = 1 SELECT value FROM telemetry.readings WHERE ${column} > ${micros(from)} AND ${column} <= ${micros(to)}`,
      )
      expect(explained.flat().join('\n')).toMatch(/Parts: 1\/\d/)
    }
  })

  test.each(['', 'nonsense', Buffer.from('[1,"a"]').toString('base64url'), Buffer.from('{}').toString('base64url')])(
    'the key %j is refused',
    async key => {
      await expect(on.database.history(ALL, key)).rejects.toMatchObject({ code: 'invalid_request' })
    },
  )
})

describe('buckets', () => {
  const five: Aggregate[] = ['avg', 'min', 'max', 'sum', 'count']

  test.each([
    ['45 s, from the readings', 45_000, 0, 0],
    ['a minute', MINUTE, 0, 0],
    ['5 minutes', 5 * MINUTE, 0, 0],
    ['an hour', HOUR, 0, 0],
    ['6 hours', 6 * HOUR, 0, 0],
    ['a day', 24 * HOUR, 0, 0],
    ['an hour, cut within a minute', HOUR, 3 * HOUR + 777, -5 * HOUR - 12_345],
    ['a minute, within one minute', MINUTE, 47_000, -30 * HOUR + 60_000],
  ])('of %s equal the readings in them', async (_name, everyMs, afterStart, beforeEnd) => {
    const query = { ...ALL, metrics: ['heat', 'speed'], from: START + afterStart * MS, to: RECEIVED + beforeEnd * MS }
    const buckets = await on.database.historyBuckets(query, everyMs, five)
    expectBuckets(buckets, expectedBuckets(query, everyMs))
  })

  test('in falling order, up to a limit', async () => {
    const rising = await on.database.historyBuckets({ ...ALL, metrics: ['heat'] }, HOUR, ['count'])
    const falling = await on.database.historyBuckets({ ...ALL, metrics: ['heat'], order: 'desc', limit: 3 }, HOUR, [
      'count',
    ])
    expect(falling).toEqual([...rising].reverse().slice(0, 3))
  })

  test('the last of a bucket is its newest numeric reading', async () => {
    const buckets = await on.database.historyBuckets({ ...ALL, metrics: ['heat'] }, HOUR, ['count', 'last'])
    for (const { bucket, values } of buckets) {
      const inBucket = READINGS.filter(
        ({ metric, sentTs }) => metric === 'heat' && Math.floor((sentTs ?? 0) / MS / HOUR) * HOUR === bucket,
      )
      const newest = inBucket.reduce((best, one) => ((one.sentTs ?? 0) > (best.sentTs ?? 0) ? one : best))
      expect(values).toEqual([inBucket.length, Number(newest.value)])
    }
  })

  test('text has none', async () => {
    expect(await on.database.historyBuckets({ ...ALL, metrics: ['note'] }, HOUR, five)).toEqual([])
  })

  test('come from the coarsest rollup that fills them', () => {
    expect([1000, 90_000, MINUTE, 90 * MINUTE, HOUR, 24 * HOUR].map(rollupUnit)).toEqual([
      null,
      null,
      MINUTE,
      MINUTE,
      HOUR,
      HOUR,
    ])
  })
})

function expectedBuckets(query: HistoryQuery, everyMs: number): Map<string, number[]> {
  const buckets = new Map<string, number[]>()
  for (const { metric, sentTs, value } of READINGS) {
    const ts = sentTs ?? 0
    if (metric === 'note' || ts < query.from || ts >= query.to) continue
    const key = `${metric}@${Math.floor(ts / MS / everyMs) * everyMs}`
    buckets.set(key, [...(buckets.get(key) ?? []), Number(value)])
  }
  return buckets
}

function expectBuckets(buckets: BucketPoint[], expected: Map<string, number[]>): void {
  expect(buckets.map(({ metric, bucket }) => `${metric}@${bucket}`).sort()).toEqual([...expected.keys()].sort())
  for (const { metric, bucket, values } of buckets) {
    const numbers = expected.get(`${metric}@${bucket}`) ?? []
    const sum = numbers.reduce((a, b) => a + b, 0)
    const tolerance = Math.max(1, ...numbers.map(Math.abs)) * 1e-9
    const [avg, min, max, total, count] = values
    expect([min, max, count]).toEqual([Math.min(...numbers), Math.max(...numbers), numbers.length])
    expect(Math.abs((avg ?? 0) - sum / numbers.length)).toBeLessThan(tolerance)
    expect(Math.abs((total ?? 0) - sum)).toBeLessThan(tolerance * numbers.length)
  }
}
