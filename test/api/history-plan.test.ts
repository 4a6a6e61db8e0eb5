/** What a history request asks for, by table. */
import { expect, test } from 'vitest'
import { type HistoryParameters, planHistory } from '../../api/history-plan.ts'
import { encodeCursor } from '../../api/paging.ts'

/** ms. */
const NOON = Date.UTC(2026, 10, 20, 12)
const MINUTE = 60_000
const HOUR = 60 * MINUTE
const TEN = (NOON - 2 * HOUR) * 1000
const [HOUR_BEFORE_US, NOON_US] = [(NOON - HOUR) * 1000, NOON * 1000]

const raw = (parameters: HistoryParameters) => planHistory('press-1', parameters, NOON)

test('names of metrics have commas between them, or stand each by itself: then a comma is one of its characters', () => {
  const named = (metrics: string | string[]) => raw({ metrics }).query.metrics
  expect(named('a,b,a,')).toEqual(['a', 'b'])
  expect(named(['a,b', 'c', ''])).toEqual(['a,b', 'c'])
  expect(named(['a,b', 'a,b'])).toEqual(['a,b'])
  expect(named('')).toBe(null)
})

test('the last hour, oldest first, a thousand rows of all metrics, when nothing is said', () => {
  expect(raw({})).toEqual({
    kind: 'raw',
    after: null,
    query: { device: 'press-1', metrics: null, from: HOUR_BEFORE_US, to: NOON_US, order: 'asc', limit: 1000 },
  })
})

test.each<[string, number]>([
  ['2026-11-20T10:00:00Z', TEN],
  ['2026-11-20t10:00:00.123z', TEN + 123_000],
  ['2026-11-20T10:00:00.123456Z', TEN + 123_456],
  ['2026-11-20T10:00:00.000001Z', TEN + 1],
  ['2026-11-20T10:00:00.123456789Z', TEN + 123_456],
  ['2026-11-20T11:30:00.1+01:30', TEN + 100_000],
  ['2026-11-20T11:30:00+01:30', TEN],
  ['2026-11-20T11:30:00 01:30', TEN],
  ['2026-11-20T08:00:00-02:00', TEN],
  [String(TEN / 1000), TEN],
  [String(TEN), TEN],
  [String(TEN + 1), TEN + 1],
  ['0', 0],
  ['1970-01-01T00:00:00.000001Z', 1],
  ['9000000000000', 9_000_000_000_000_000],
])('a time may be written as %s, and is %d µs', (text, us) => {
  expect(raw({ from: text, to: '9999-12-31T00:00:00Z' }).query.from).toBe(us)
})

test('an end after 2255 is the last µs that there is', () => {
  for (const to of ['9999-12-31T00:00:00Z', '99999999999999']) {
    expect(raw({ to }).query.to).toBe(Number.MAX_SAFE_INTEGER)
  }
})

test.each([
  'yesterday',
  '2026-11-20',
  '2026-02-30T00:00:00Z',
  '2026-11-20T10:00:00',
  '2026-11-20T25:00:00Z',
  '-1',
  '1e3',
  '9999999999999999999',
  '1969-12-31T23:59:59.999999Z',
  '2026-11-20T10:00:00.Z',
  '2026-11-20T10:00:00.0000000001Z',
  '',
])('a time may not be written as %j', text => {
  expect(() => raw({ to: text })).toThrow(
    expect.objectContaining({ code: 'invalid_request', parts: [expect.objectContaining({ pointer: '#/query/to' })] }),
  )
})

test.each<[HistoryParameters, string]>([
  [{ from: String(NOON), to: String(NOON) }, 'from'],
  [{ from: String(NOON + 1) }, 'from'],
  [{ from: String(NOON_US + 1) }, 'from'],
  [{ from: String(NOON_US), to: '2026-11-20T12:00:00Z' }, 'from'],
  [{ cursor: encodeCursor([1, 1.5, 'k']) }, 'cursor'],
  [{ cursor: encodeCursor([-1, 2, 'k']) }, 'cursor'],
  [{ agg: 'avg' }, 'agg'],
  [{ every: '1m', agg: 'avg,median' }, 'agg'],
  [{ every: '1m', agg: '' }, 'agg'],
  [{ every: '0m' }, 'every'],
  [{ every: '1' }, 'every'],
  [{ every: '1.5h' }, 'every'],
  [{ every: '1y' }, 'every'],
  [{ every: '1s', from: '0' }, 'every'],
  [{ every: '1s', metrics: 'a,b,c' }, 'every'],
  [{ every: '1m', limit: 5 }, 'limit'],
  [{ every: '1m', cursor: encodeCursor([1, 2, 'k']) }, 'cursor'],
  [{ cursor: 'nonsense' }, 'cursor'],
  [{ cursor: encodeCursor([1, 'two', 'k']) }, 'cursor'],
])('%o is refused for its %s', (parameters, parameter) => {
  const parts = [expect.objectContaining({ pointer: `#/query/${parameter}` })]
  expect(() => raw(parameters)).toThrow(expect.objectContaining({ code: 'invalid_request', parts }))
})

test('buckets come with the aggregates asked for, in one order, and one row more than may be shown', () => {
  expect(planHistory('press-1', { every: '5m', agg: 'last,avg,last', metrics: 'a,b,a,', order: 'desc' }, NOON)).toEqual(
    {
      kind: 'buckets',
      every: '5m',
      everyMs: 5 * MINUTE,
      aggregates: ['avg', 'last'],
      query: {
        device: 'press-1',
        metrics: ['a', 'b'],
        from: HOUR_BEFORE_US,
        to: NOON_US,
        order: 'desc',
        limit: 10_001,
      },
    },
  )
})

test('as many buckets as may be shown are granted, and one more is not, to the µs', () => {
  const spans = (buckets: number, us = 0) => raw({ every: '1s', from: String(NOON_US - buckets * 1_000_000 - us) })
  expect(spans(10_000).kind).toBe('buckets')
  expect(() => spans(10_000, 1)).toThrow('more than 10000')
  expect(() => spans(10_001)).toThrow('more than 10000')
})

test('a cursor that was given out before an upgrade, in ms, keeps its range', () => {
  const cursor = encodeCursor([NOON - 2_000, NOON, 'key-7'])
  const plan = planHistory('press-1', { cursor }, NOON + MINUTE)
  expect(plan).toMatchObject({ after: 'key-7', query: { from: NOON_US - 2_000_000, to: NOON_US } })
})

test('a cursor keeps the range of the first page, to the µs, while the clock moves on', () => {
  const cursor = encodeCursor([HOUR_BEFORE_US + 1, NOON_US + 7, 'key-7', 'us'])
  const plan = planHistory('press-1', { cursor, limit: 10 }, NOON + MINUTE)
  expect(plan).toMatchObject({ after: 'key-7', query: { from: HOUR_BEFORE_US + 1, to: NOON_US + 7, limit: 10 } })
})
