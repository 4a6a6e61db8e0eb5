/**
 * Everything that a broken, careless or hostile device may send: each payload is either stored exactly as these rows say,
 * or quarantined with this reason [G3]. The failure that this table looks for is a payload that is stored changed.
 */
import { describe, expect, it } from 'vitest'
import { decodePayload, openWritten } from '../../ingest/decode.ts'
import { REASONS, type Reason, Refusal } from '../../ingest/refusal.ts'
import { encodeLine, LINE_FORMAT, parseLines } from '../../model/message.ts'
import { effectiveTs } from '../../model/reading.ts'
import { BROKEN, BYTES, EMPTY, SHAPES, SIZES } from './hostile-forms.ts'
import { NOW, type Stored } from './hostile-row.ts'
import { NAMES, NUMBERS, PLAIN, PLAIN_NAMES, TEXTS, TIMES } from './hostile-values.ts'

const RECEIVED_AT = NOW * 1000
const JSON_ROWS = { SHAPES, EMPTY, BROKEN, BYTES, NUMBERS, TEXTS, NAMES, SIZES, TIMES }

describe('a hostile payload is stored exactly, or quarantined with its reason [G3]', () => {
  for (const [group, rows] of Object.entries(JSON_ROWS)) {
    it.each(rows)(`${group.toLowerCase()}: %s`, (_, payload, expected) => check(payload, null, expected))
  }

  it.each(PLAIN)('a plain value: %s', (_, payload, expected) => check(payload, 'v', expected))

  it.each(PLAIN_NAMES)('the name in a topic: %s', (_, metric, expected) =>
    check('1', metric, expected === 'ok' ? [[metric, 1]] : expected),
  )

  it('has at least 200 rows, no two of one name, and one for each reason that a payload can have', () => {
    const groups = Object.entries({ ...JSON_ROWS, PLAIN })
    const titles = groups.flatMap(([group, rows]) => rows.map(([what]) => `${group} ${what}`))
    expect(titles.length).toBeGreaterThanOrEqual(200)
    expect(new Set(titles).size).toBe(titles.length)
    const seen = new Set(groups.flatMap(([, rows]) => rows.map(([, , expected]) => expected)))
    const ofSpace = ['too_many_metrics', 'too_many_devices']
    expect(Object.keys(REASONS).filter(reason => !ofSpace.includes(reason) && !seen.has(reason as Reason))).toEqual([])
  })

  it('leaves no trace of a refused message in the next one', () => {
    check('{"a":1,"b":{"c":', null, 'invalid_json')
    check('{"a":1,"b":{"c":2}}', null, [
      ['a', 1],
      ['b.c', 2],
    ])
    check('{"ts":5,"values":{"a":1}}', null, 'timestamp_out_of_range')
    check('{"a":1}', null, [['a', 1]])
  })

  it('answers 256 KB of anything within 50 ms', () => {
    const large = Object.values(JSON_ROWS)
      .flat()
      .filter(([, payload]) => payload.length > 10_000)
    const slow = large.filter(([, payload]) => msOf(payload as string) > 50)
    expect(large.length).toBeGreaterThan(10)
    expect(slow.map(([what]) => what)).toEqual([])
  })
})

/** The best of a few, because the machine may be busy with something else. */
function msOf(payload: string): number {
  const bytes = Buffer.from(payload)
  const tries = Array.from({ length: 5 }, () => {
    const start = performance.now()
    decodePayload(bytes, null, RECEIVED_AT)
    return performance.now() - start
  })
  return Math.min(...tries)
}

/** Through the decoder, and then through the line of the log and back, as a writer will see it. */
function check(payload: string | Uint8Array, metric: string | null, expected: Stored | Reason): void {
  const written = openWritten()
  const decoded = decodePayload(Buffer.from(payload as string), metric, RECEIVED_AT, written)
  if (typeof expected === 'string') {
    expect(decoded).toBeInstanceOf(Refusal)
    const { reason, detail } = decoded as Refusal
    expect(reason).toBe(expected)
    expect(detail).toMatch(/^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]{10,400}$/)
    return
  }
  const readings = expected.map(([name, value, sentTs = null, element = 0]) => {
    const receivedAt = RECEIVED_AT + element
    return { metric: name, ts: effectiveTs(sentTs, receivedAt), receivedAt, value, sentTs }
  })
  expect(decoded).toEqual(readings)
  const message = { device: 'd', receivedAt: RECEIVED_AT, readings }
  const line = encodeLine(message, { sent: written.sent })
  expect(line).not.toContain('\n')
  expect(parseLines(line, LINE_FORMAT)).toEqual([message])
}
