import { expect, test } from 'vitest'
import type { Moment } from '../../model/reading.ts'
import { expectMessages, spansOf } from '../../simulate/expected.ts'
import { openLedger } from '../../simulate/ledger.ts'
import { sameTotals, totalsOf } from '../../simulate/series-totals.ts'
import { newestByMetric, stateDifferences } from '../../simulate/states.ts'
import { replayWorkload, syntheticWorkload } from '../../simulate/workload.ts'

const moment = (ts: number, value: number | bigint, receivedAt = 1): Moment => ({ ts, receivedAt, value })

test('a workload is the same for the same seed, and another for another seed', () => {
  const options = { scenario: 'steady', devices: 3, total: 10, run: 'r' } as const
  const payloads = (seed: number) =>
    Array.from({ length: 10 }, (_, n) => syntheticWorkload({ ...options, seed }).payload(n, 1_763_640_000_000))
  expect(payloads(7)).toEqual(payloads(7))
  expect(payloads(7)).not.toEqual(payloads(8))
  expect(JSON.parse(payloads(7)[4] ?? '')).toMatchObject({ ts: 1_763_640_000_000, values: { counter: 4 } })
})

test('a replay sends the literal text, in the order of each file, and knows its repetitions', () => {
  const workload = replayWorkload([
    { device: 'a', times: [3, 1, 3], values: ['1.50', '2', '1.5'] },
    { device: 'b', times: [3], values: ['1.50'] },
  ])
  const sent = Array.from({ length: workload.total }, (_, n) => [
    workload.deviceOf(n),
    workload.payload(n, workload.timeOf(n, 99)),
  ])
  expect(sent).toEqual([
    [0, '{"ts":3,"values":{"value":1.50}}'],
    [1, '{"ts":3,"values":{"value":1.50}}'],
    [0, '{"ts":1,"values":{"value":2}}'],
    [0, '{"ts":3,"values":{"value":1.5}}'],
  ])
  expect([0, 1, 2, 3].map(workload.originalOf)).toEqual([0, 1, 2, 0])
})

test('a repetition is expected once, and acknowledged when either was', () => {
  const workload = replayWorkload([{ device: 'a', times: [3, 3, 4], values: ['1', '1', '1'] }])
  const ledger = openLedger(workload.total)
  for (let n = 0; n < 3; n++) ledger.sent(n, workload.timeOf(n, 0))
  ledger.acked(1)
  expect(expectMessages(workload, ledger)).toEqual({
    byDevice: [
      [
        { n: 0, acked: true },
        { n: 2, acked: false },
      ],
    ],
    ackedReadings: 1,
    repetitions: 1,
  })
})

test('what was never sent is not expected, and a span holds a bounded number of messages', () => {
  const workload = syntheticWorkload({ scenario: 'steady', devices: 4, total: 40, seed: 1, run: 'r' })
  const ledger = openLedger(40)
  for (let n = 0; n < 20; n++) ledger.sent(n, 1)
  for (let n = 0; n < 10; n++) ledger.acked(n)
  const expected = expectMessages(workload, ledger)
  expect(expected.ackedReadings).toBe(30)
  expect(expected.byDevice.map(messages => messages.length)).toEqual([5, 5, 5, 5])
  expect([...spansOf(workload, expected, 10)]).toEqual([
    { from: 0, to: 2 },
    { from: 2, to: 4 },
  ])
  expect([...spansOf(workload, expected, 1)]).toHaveLength(4)
})

test('the newest state is the newest by time, then by receipt, then by value', () => {
  const rows = [moment(5, 1), moment(9, 1, 3), moment(9, 7, 2), moment(9, 2, 3)].map(each => ({
    device: 'd',
    metric: 't',
    time: each.ts,
    value: '',
    moment: each,
  }))
  expect(newestByMetric(rows).get('t')).toEqual(moment(9, 2, 3))
})

test('a state that is old, missing, of another time or value is told', () => {
  const newest = new Map([['t', moment(1_000, 5)]])
  const shown = (value: unknown, ts: string) => ({ metrics: { t: { value, ts } } })
  expect(stateDifferences('d', newest, shown(5, '1970-01-01T00:00:01.000Z'))).toEqual([])
  expect(stateDifferences('d', newest, shown(4, '1970-01-01T00:00:01.000Z'))).toHaveLength(1)
  expect(stateDifferences('d', newest, shown('5', '1970-01-01T00:00:01.000Z'))).toHaveLength(1)
  expect(stateDifferences('d', newest, shown(5, '1970-01-01T00:00:00.999Z'))).toHaveLength(1)
  expect(stateDifferences('d', newest, { metrics: {} })).toHaveLength(1)
  expect(stateDifferences('d', newest, null)).toHaveLength(1)
})

test('totals agree only when count, least and greatest are equal and the sums are but for rounding', () => {
  const totals = totalsOf([
    { time: 1, value: 0.1 },
    { time: 3, value: 0.7 },
    { time: 3, value: 0.2 },
    { time: 2, value: 9 },
  ])
  expect(totals).toMatchObject({ count: 4, min: 0.1, max: 9, last: 0.2, from: 1, to: 3 })
  expect(sameTotals(totals, { ...totals, sum: 10 + 1e-10 })).toBe(true)
  expect(sameTotals(totals, { ...totals, sum: 10.001 })).toBe(false)
  expect(sameTotals(totals, { ...totals, count: 5 })).toBe(false)
  expect(sameTotals(totals, { ...totals, min: 0 })).toBe(false)
  expect(sameTotals(totals, { ...totals, max: 9.5 })).toBe(false)
})
