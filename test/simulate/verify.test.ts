import { expect, test } from 'vitest'
import type { Moment } from '../../model/reading.ts'
import type { SentReading } from '../../simulate/compare.ts'
import { expectMessages, spansOf } from '../../simulate/expected.ts'
import { openLedger } from '../../simulate/ledger.ts'
import { sameTotals, totalsOf } from '../../simulate/series-totals.ts'
import { newestByMetric, parseMicros, stateDifferences } from '../../simulate/states.ts'
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

test('a toggle changes its boolean with every message of a device, in whole seconds', () => {
  const workload = syntheticWorkload({ scenario: 'toggle', devices: 2, total: 20, seed: 1, run: 'r' })
  const now = 1_763_640_000_123
  const payloads = Array.from({ length: 20 }, (_, n) => [
    workload.deviceOf(n),
    workload.payload(n, workload.timeOf(n, now)),
  ])
  for (const device of [0, 1]) {
    const doors = payloads.filter(([of]) => of === device).map(([, text]) => JSON.parse(String(text)))
    const expected = Array.from({ length: 10 }, (_, n) => ({ ts: 1_763_640_000, values: { door: n % 2 === 0 } }))
    expect(doors).toEqual(expected)
  }
})

test('a replay sends the literal text, in the order of each file, and knows what is equal', () => {
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
  const [first, ...others] = [0, 1, 2, 3].map(n => workload.contentOf(n, workload.timeOf(n, 0)))
  expect(others.map(content => content === first)).toEqual([false, false, true])
})

/** Equal messages of one device, each with the connection on which it was sent, and the one on which it was acknowledged, if so. */
function equalMessages(...messages: readonly [sentOn: number, ackedOn: number | null][]) {
  const workload = replayWorkload([{ device: 'a', times: messages.map(() => 3), values: messages.map(() => '1') }])
  const ledger = openLedger(workload.total)
  messages.forEach(([sentOn, ackedOn], n) => {
    ledger.sent(n, workload.timeOf(n, 0), sentOn)
    if (ackedOn !== null) ledger.acked(n, ackedOn)
  })
  const { byDevice, ackedReadings, repetitions } = expectMessages(workload, ledger)
  return { mustBeStored: byDevice[0]?.map(message => message.acked), ackedReadings, repetitions }
}

test('what is equal on one connection was sent as often as it was sent', () => {
  const sent = equalMessages([0, 0], [0, 0], [0, null])
  expect(sent).toEqual({ mustBeStored: [true, true, false], ackedReadings: 2, repetitions: 0 })
})

test('what is equal to a message of an earlier connection may be that one sent again; one of them is stored', () => {
  const again = { mustBeStored: [true, false], ackedReadings: 1, repetitions: 1 }
  expect(equalMessages([0, 0], [1, 1])).toEqual(again)
  expect(equalMessages([0, null], [1, 1])).toEqual(again)
  // Sent on the first connection, and perhaps again on the second one, which acknowledged it.
  expect(equalMessages([0, 0], [0, 1])).toEqual(again)
})

test('a message is sent again once: of two equal ones on a later connection, one is another', () => {
  const sent = equalMessages([0, 0], [1, 1], [1, 1])
  expect(sent).toEqual({ mustBeStored: [true, false, true], ackedReadings: 2, repetitions: 1 })
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

const rowsOf = (...moments: readonly Moment[]) =>
  moments.map(each => ({
    ...{ device: 'd', metric: 't', time: each.ts, value: '', receivedAt: each.receivedAt },
    moment: each,
  }))

test('the newest state is the one of the newest time, and of several the one that was sent last', () => {
  const sent = (time: number, value: string, acked = true) => ({ metric: 't', time, value, acked })
  const newest = (...readings: readonly SentReading[]) => newestByMetric(readings, []).get('t')
  expect(newest(sent(9, '7'), sent(9, '2'), sent(5, '8'))).toEqual([{ time: 9, value: '2' }])
  expect(newest(sent(9, 'true'), sent(9, 'false'))).toEqual([{ time: 9, value: 'bool 0' }])
  // What nobody was told to have arrived may be there.
  expect(newest(sent(9, '7'), sent(9, '2', false), sent(8, '3', false))).toEqual([
    { time: 9, value: '7' },
    { time: 9, value: '2' },
  ])
})

test('what was not sent here counts as stored: by time, then by receipt, then by value', () => {
  const rows = rowsOf(moment(5, 1), moment(9, 1, 3), moment(9, 7, 2), moment(9, 2, 3))
  expect(newestByMetric([], rows).get('t')).toEqual([{ time: 9, value: '2' }])
  const older = { metric: 't', time: 8, value: '5', acked: true }
  expect(newestByMetric([older], rows).get('t')).toEqual([{ time: 9, value: '2' }])
})

test('a time of the API is read to the µs', () => {
  expect(parseMicros('2025-11-20T12:00:00.123Z')).toBe(1_763_640_000_123_000)
  expect(parseMicros('2025-11-20T12:00:00.123456Z')).toBe(1_763_640_000_123_456)
})

test('a state that is old, missing, of another time or value is told', () => {
  const newest = new Map([['t', [{ time: 1_000_000, value: '5' }]]])
  const shown = (value: unknown, ts: string) => ({ metrics: { t: { value, ts } } })
  expect(stateDifferences('d', newest, shown(5, '1970-01-01T00:00:01.000Z'))).toEqual([])
  expect(stateDifferences('d', newest, shown(4, '1970-01-01T00:00:01.000Z'))).toHaveLength(1)
  expect(stateDifferences('d', newest, shown('5', '1970-01-01T00:00:01.000Z'))).toHaveLength(1)
  expect(stateDifferences('d', newest, shown(5, '1970-01-01T00:00:00.999Z'))).toHaveLength(1)
  expect(stateDifferences('d', newest, shown(5, '1970-01-01T00:00:01.000001Z'))).toHaveLength(1)
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
