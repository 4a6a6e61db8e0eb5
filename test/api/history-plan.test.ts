/** What a history request asks for, by table. */
import { expect, test } from 'vitest'
import { type HistoryParameters, planHistory } from '../../api/history-plan.ts'
import { encodeCursor } from '../../api/paging.ts'

const NOON = Date.UTC(2026, 10, 20, 12)
const MINUTE = 60_000
const HOUR = 60 * MINUTE

const raw = (parameters: HistoryParameters) => planHistory('press-1', parameters, NOON)

test('the last hour, oldest first, a thousand rows of all metrics, when nothing is said', () => {
  expect(raw({})).toEqual({
    kind: 'raw',
    after: null,
    query: { device: 'press-1', metrics: null, from: NOON - HOUR, to: NOON, order: 'asc', limit: 1000 },
  })
})

test.each<[string, number]>([
  ['2026-11-20T10:00:00Z', NOON - 2 * HOUR],
  ['2026-11-20t10:00:00.123z', NOON - 2 * HOUR + 123],
  ['2026-11-20T11:30:00+01:30', NOON - 2 * HOUR],
  ['2026-11-20T11:30:00 01:30', NOON - 2 * HOUR],
  ['2026-11-20T08:00:00-02:00', NOON - 2 * HOUR],
  [String(NOON - 2 * HOUR), NOON - 2 * HOUR],
  ['0', 0],
])('a time may be written as %s', (text, ms) => {
  expect(raw({ from: text }).query.from).toBe(ms)
})

test.each([
  'yesterday',
  '2026-11-20',
  '2026-02-30T00:00:00Z',
  '2026-11-20T10:00:00',
  '2026-11-20T25:00:00Z',
  '-1',
  '1e3',
  '999999999999999',
  '',
])('a time may not be written as %j', text => {
  expect(() => raw({ to: text })).toThrow(
    expect.objectContaining({ code: 'invalid_request', parts: [expect.objectContaining({ pointer: '#/query/to' })] }),
  )
})

test.each<[HistoryParameters, string]>([
  [{ from: String(NOON), to: String(NOON) }, 'from'],
  [{ from: String(NOON + 1) }, 'from'],
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
      query: { device: 'press-1', metrics: ['a', 'b'], from: NOON - HOUR, to: NOON, order: 'desc', limit: 10_001 },
    },
  )
})

test('as many buckets as may be shown are granted, and one more is not', () => {
  const spans = (buckets: number) => raw({ every: '1s', from: String(NOON - buckets * 1000) })
  expect(spans(10_000).kind).toBe('buckets')
  expect(() => spans(10_001)).toThrow('more than 10000')
})

test('a cursor keeps the range of the first page while the clock moves on', () => {
  const plan = planHistory('press-1', { cursor: encodeCursor([NOON - HOUR, NOON, 'key-7']), limit: 10 }, NOON + MINUTE)
  expect(plan).toMatchObject({ after: 'key-7', query: { from: NOON - HOUR, to: NOON, limit: 10 } })
})
